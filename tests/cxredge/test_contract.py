"""The contract inside a model file: it survives the trip, and nothing invalid gets through."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from cxredge.contract import LONGEST_CONTRACT, Contract, parse_contract
from cxredge.errors import ModelError

from .quality.test_reference import made_reference


def changed(contract: Contract, **values: Any) -> str:
    return json.dumps({**json.loads(contract.to_json()), **values})


def test_round_trip_through_json() -> None:
    contract = Contract(
        name="edge",
        width=16,
        input_size=256,
        code="a_self",
        licence="research only",
        precision="int8",
        folds=("adain", "head"),
        input_statistics=made_reference().statistics,
        flag_thresholds=made_reference().thresholds,
        provenance={"commit": "abc", "iterations": 12},
        measured={"jsrt": {"dice": 0.97}},
        parity={"flipped_pixels": 0},
        calibration={"images": 100},
    )
    assert parse_contract(contract.to_json()) == contract


def test_names_outside_ascii_survive(contract: Contract) -> None:
    assert parse_contract(changed(contract, name="Lünge 肺")).name == "Lünge 肺"


def test_only_what_has_no_default_must_be_there(contract: Contract) -> None:
    required = {"name": "n", "width": 1, "input_size": 64, "code": "a_seg", "licence": "x"}
    assert parse_contract(json.dumps(required)).precision == "fp32"
    for missing in required:
        rest = {name: value for name, value in required.items() if name != missing}
        with pytest.raises(ModelError, match=missing) as raised:
            parse_contract(json.dumps(rest))
        assert "__init__" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("format", "1"),
        ("format", None),
        ("format", True),
        ("code", "a_other"),
        ("code", ["a_seg"]),
        ("precision", "fp8"),
        ("normalisation", "z-score"),
        ("resize", "nearest"),
        ("polarity", "MONOCHROME1"),
        ("output", "softmax"),
        ("width", 0),
        ("width", "16"),
        ("width", True),
        ("width", 16.0),
        ("input_size", -256),
        ("input_size", 10**9),
        ("input_size", None),
        ("name", 5),
        ("name", None),
        ("licence", ["MIT"]),
        ("intended_use", {}),
        ("provenance", []),
        ("measured", None),
        ("parity", "none"),
        ("folds", 5),
        ("folds", None),
        ("folds", "adain"),
        ("folds", [1, 2]),
        ("folds", {"adain": True}),
        ("input_statistics", [1]),
        ("flag_thresholds", "high"),
        ("calibration", 3),
        ("processing", True),
    ],
)
def test_a_bad_field_is_refused_by_its_name(field: str, value: object, contract: Contract) -> None:
    with pytest.raises(ModelError, match=field):
        parse_contract(changed(contract, **{field: value}))


def test_every_field_has_a_bad_value_in_the_test_above() -> None:
    (mark,) = test_a_bad_field_is_refused_by_its_name.pytestmark
    assert {field for field, _ in mark.args[1]} == {field.name for field in fields(Contract)}


def test_an_unknown_field_is_refused_with_a_reason(contract: Contract) -> None:
    with pytest.raises(ModelError, match=r"unknown field 'colour'.*newer"):
        parse_contract(changed(contract, colour="blue"))


def test_a_model_with_its_processing_inside_is_no_model_for_a_backend(contract: Contract) -> None:
    text = changed(contract, processing={"image": "raw"})
    with pytest.raises(ModelError, match="processing inside"):
        parse_contract(text)
    assert parse_contract(text, with_processing=True).processing == {"image": "raw"}


def test_no_contract_names_the_remedy() -> None:
    with pytest.raises(ModelError, match="cxredge export"):
        parse_contract(None)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[]", "3", "null", '"text"', "{} {}"])
def test_what_is_not_a_json_object_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="contract"):
        parse_contract(text)


def test_a_contract_that_is_too_long_is_refused_unread(contract: Contract) -> None:
    with pytest.raises(ModelError, match="too long"):
        parse_contract(changed(contract, provenance={"notes": "x" * LONGEST_CONTRACT}))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_nesting_bomb_is_refused(opening: str) -> None:
    with pytest.raises(ModelError):
        parse_contract(opening * 100_000)


def test_a_number_bomb_is_refused(contract: Contract) -> None:
    with pytest.raises(ModelError):
        parse_contract(contract.to_json().replace('"width": 1', '"width": ' + "9" * 100_000))


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(ModelError, match="code"):
        Contract(name="n", width=1, input_size=64, code="other", licence="x")
