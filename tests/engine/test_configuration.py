"""The builder's configuration on each version: objects that have exactly the members of the lists."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from cxredge.engine.builder import BuildSettings, make_config
from cxredge.engine.flavour import Flavour
from cxredge.engine.progress import BuildProgress

from .api_uses import VERSIONS


def made(version: str, name: str, **values: Any) -> Mock:
    """An object of a TensorRT class; members that this version lacks cannot be read or set."""
    return Mock(spec_set=sorted(VERSIONS[version][name]), **values)


def made_library(version: str) -> SimpleNamespace:
    """The module, as far as a configuration needs it."""
    enums = {
        name: SimpleNamespace(**{member: member for member in VERSIONS[version][name]})
        for name in ("BuilderFlag", "ComputeCapability")
        if name in VERSIONS[version]
    }
    return SimpleNamespace(IProgressMonitor=object, **enums)


def configure(version: str, **settings: Any) -> tuple[Mock, Mock]:
    """The configuration that is made, and the profile in it."""
    config, profile = made(version, "IBuilderConfig"), made(version, "IOptimizationProfile")
    config.create_timing_cache.return_value = made(version, "ITimingCache")
    builder = made(version, "Builder")
    builder.create_builder_config.return_value = config
    builder.create_optimization_profile.return_value = profile
    tensor = made(version, "ITensor", shape=(-1, 1, 256, 256))
    tensor.name = "radiograph"
    network = made(version, "INetworkDefinition", num_inputs=1)
    network.get_input.return_value = tensor
    flavour = Flavour("tensorrt_rtx" if "rtx" in version else "tensorrt", version, made_library(version))
    asked = BuildSettings(**{"batches": (1, 4, 16), "compute_capability": "8.9", "native": True, **settings})
    assert make_config(builder, network, flavour, asked, BuildProgress()) is config
    return config, profile


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gets_its_profile_a_monitor_and_no_tf32(version: str) -> None:
    config, profile = configure(version)
    profile.set_shape.assert_called_once_with("radiograph", *((batch, 1, 256, 256) for batch in (1, 4, 16)))
    config.add_optimization_profile.assert_called_once_with(profile)
    config.clear_flag.assert_called_once_with("TF32")
    assert config.progress_monitor.step_complete("phase", 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_version_gets_a_precision_flag_or_a_calibrator(version: str) -> None:
    config, _ = configure(version)
    config.set_flag.assert_not_called()
    names = {name for name, *_ in config.mock_calls}
    assert not names & {"set_calibration_profile", "set_quantization_flag"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_target_is_named_where_the_version_can(version: str) -> None:
    config, _ = configure(version)
    if version.startswith("rtx"):
        config.set_compute_capability.assert_called_once_with("SM89", 0)
        assert config.num_compute_capabilities == 1
    else:
        assert not hasattr(config, "set_compute_capability")


@pytest.mark.parametrize("version", [version for version in VERSIONS if not version.startswith("rtx")])
def test_tensorrt_gets_its_timing_cache(version: str, tmp_path: Any) -> None:
    (tmp_path / "timing.bin").write_bytes(b"measured")
    config, _ = configure(version, timing_cache=tmp_path / "timing.bin")
    config.create_timing_cache.assert_called_once_with(b"measured")
    config.set_timing_cache.assert_called_once_with(config.create_timing_cache.return_value, ignore_mismatch=False)
