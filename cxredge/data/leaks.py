"""Training rows that must not be trained on: copies of held-out images, held-out patients, rows left out by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxredge.data.dataset import HELD_OUT_SPLITS, TRAINING_SPLIT, Case, Dataset
from cxredge.errors import DatasetError

if TYPE_CHECKING:
    from cxredge.data.audit import Audit

PATIENT_COLUMN = "patientid"


@dataclass(frozen=True)
class SharedPatient:
    """A patient whose images stand in the training split and in a held-out split of one data set."""

    dataset: str
    patient: str
    training: tuple[Case, ...]
    held_out: tuple[Case, ...]


def shared_patients(datasets: Iterable[Dataset]) -> tuple[SharedPatient, ...]:
    """Patients (manifest column ``patientid``) that stand in the training and a held-out split of one data set."""
    shared = []
    for dataset in datasets:
        by_patient: dict[str, list[Case]] = {}
        for case in dataset.cases:
            if patient := (case.row.get(PATIENT_COLUMN) or "").strip():
                by_patient.setdefault(patient, []).append(case)
        for patient, cases in by_patient.items():
            training = tuple(case for case in cases if case.split == TRAINING_SPLIT)
            held_out = tuple(case for case in cases if case.split in HELD_OUT_SPLITS)
            if training and held_out:
                shared.append(SharedPatient(dataset.name, patient, training, held_out))
    return tuple(shared)


def without_shared_patients(cases: Iterable[Case], datasets: Iterable[Dataset]) -> tuple[Case, ...]:
    """The training cases whose patient stands in no held-out split of its data set.

    Args:
        cases: training cases of ``datasets``.
        datasets: the data sets; :func:`shared_patients` says what is left out of them.
    """
    left_out = {case.image for shared in shared_patients(datasets) for case in shared.training}
    return tuple(case for case in cases if case.image not in left_out)


def without_rows(cases: Iterable[Case], rows: Iterable[str]) -> tuple[Case, ...]:
    """The cases that are not among ``rows``, each ``DATASET/NAME`` as a leak's message names it.

    Raises:
        DatasetError: a row is not among the cases.
    """
    named = {f"{case.image.parents[1].name}/{case.name}": case for case in cases}
    for row in rows:
        if named.pop(row, None) is None:
            raise DatasetError(f"'{row}' is not among the rows, so it cannot be left out (write DATASET/NAME)")
    return tuple(named.values())


def require_no_leaks(audit: Audit, cases: Iterable[Case] | None = None) -> None:
    """Refuse training images that are held-out images too.

    Args:
        audit: of all data sets that are trained on or measured.
        cases: the training cases; without them every row of split ``train`` counts.

    Raises:
        DatasetError: there are such images; the message names the pairs and what to do.
    """
    images = None if cases is None else {case.image for case in cases}
    leaks = [pair for pair in audit.leaks if images is None or pair.first.case.image in images]
    if leaks:
        pairs = "; ".join(map(str, leaks[:10])) + ("; ..." if len(leaks) > 10 else "")
        raise DatasetError(
            f"{len(leaks)} training image(s) are the same radiograph as a held-out one: {pairs}. "
            "Leave the training row out, or give one of the two another split in its manifest.csv"
        )
