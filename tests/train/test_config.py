"""The configuration holds the method's values, says what is wrong with a file, and survives being written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxredge.errors import ConfigError
from cxredge_train.config import (
    AugmentationConfig,
    DataConfig,
    LossConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    Stage,
    TaskConfig,
    TrainingConfig,
)
from cxredge_train.config_file import config_path, read_config
from cxredge_train.networks import NetworkConfig

SHIPPED = sorted(path.stem for path in config_path("paper").parent.glob("*.toml"))


def read_text(folder: Path, text: str) -> TrainingConfig:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_defaults_are_the_methods() -> None:
    config = TrainingConfig()
    assert config.network == NetworkConfig(width=64, input_size=256, encoder_affine=True, shared_code_trunk=False)
    losses, schedule = config.losses, config.schedule
    assert (losses.lambda_seg, losses.lambda_style, losses.class_weights) == (5, 1, (0.7, 1))
    assert (losses.lambda_adv, losses.lambda_r1, losses.r1_every) == (1, 1, 1)
    assert (losses.lambda_sty, losses.lambda_cyc, losses.lambda_ds, losses.ds_iterations) == (1, 2, 1, 40_000)
    assert (losses.lambda_inter, losses.lambda_intra) == (10, 1)
    assert {getattr(config.tasks, name) for name in vars(config.tasks)} == {1}
    assert (config.optimiser.learning_rate, config.optimiser.code_learning_rate) == (1e-4, 1e-6)
    assert (config.optimiser.betas, config.optimiser.weight_decay) == ((0, 0.99), 1e-4)
    assert config.optimiser.ema_decay == 0.999
    assert (schedule.supervised, schedule.adaptation, schedule.distillation) == (0, 40_000, 40_000)
    assert (schedule.batch_size, schedule.accumulate) == (1, 1)
    assert (schedule.decay, schedule.milestones, schedule.decay_factor) == ("steps", (0.55, 0.70), 0.1)
    assert (schedule.coarse_size, schedule.warm_start_self) == (0, False)
    assert not config.augmentation.enabled


def test_an_empty_file_is_the_default_configuration(tmp_path: Path) -> None:
    assert read_text(tmp_path, "") == TrainingConfig()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_reads_and_bears_its_files_name(name: str) -> None:
    assert read_config(config_path(name)).name == name


@pytest.mark.parametrize(("name", "width"), [("edge", 16), ("standard", 32), ("paper", 64)])
def test_the_three_sizes_differ_from_the_method_in_width_alone(name: str, width: int) -> None:
    config = read_config(config_path(name))
    assert replace(config, data=DataConfig()) == TrainingConfig(name=name, network=NetworkConfig(width=width))
    assert replace(config.data, leave_out=()) == DataConfig()


def test_fields_left_out_keep_their_defaults(tmp_path: Path) -> None:
    config = read_text(tmp_path, 'name = "mine"\n[schedule]\nadaptation = 10\n')
    assert config == TrainingConfig(name="mine", schedule=ScheduleConfig(adaptation=10))


def test_an_integer_passes_as_a_float_and_a_list_as_a_tuple(tmp_path: Path) -> None:
    losses = read_text(tmp_path, "[losses]\nlambda_seg = 2\nclass_weights = [1, 2]\n").losses
    assert losses == LossConfig(lambda_seg=2.0, class_weights=(1.0, 2.0))
    assert isinstance(losses.lambda_seg, float)
    assert isinstance(losses.class_weights[0], float)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("nam = 'x'", "nam"),
        ("[losses]\nlambda_sge = 5.0", "losses.lambda_sge"),
        ("[trainer]\nx = 1", "trainer"),
        ("[schedule]\niterations = 10", "schedule.iterations"),
        ("[tasks]\nmask_to_intra = 1.0", "tasks.mask_to_intra"),
    ],
)
def test_an_unknown_field_is_named_with_the_file(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.toml: unknown field {field}; known: "):
        read_text(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("name = 3", "name"),
        ("network = 64", "network"),
        ("[network]\nwidth = 16.0", "network.width"),
        ("[network]\nwidth = true", "network.width"),
        ("[network]\nencoder_affine = 1", "network.encoder_affine"),
        ("[data]\nintra = 'jsrt'", "data.intra"),
        ("[data]\nintra = ['jsrt', 4]", r"data.intra\[1\]"),
        ("[losses]\nlambda_seg = '5'", "losses.lambda_seg"),
        ("[losses]\nlambda_seg = false", "losses.lambda_seg"),
        ("[losses]\nclass_weights = [1.0]", "losses.class_weights"),
        ("[losses]\nclass_weights = [1.0, 'x']", r"losses.class_weights\[1\]"),
        ("[optimiser]\nbetas = 0.9", "optimiser.betas"),
        ("[schedule]\ndecay = 'linear'", "schedule.decay"),
        ("[schedule]\ndecay = ['steps']", "schedule.decay"),
        ("[schedule]\nmilestones = [0.5, '0.7']", r"schedule.milestones\[1\]"),
        ("[run]\nprecision = 'fp16'", "run.precision"),
        ("[run]\nseed = 2024-01-01", "run.seed"),
    ],
)
def test_a_wrong_type_is_named_with_the_field_and_the_file(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.toml: {field} must "):
        read_text(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[network]\nwidth = 0", "network.width"),
        ("[network]\ninput_size = 100", "network.input_size"),
        ("[data]\nintra = []", "data.intra"),
        ("[losses]\nlambda_seg = -1.0", "losses.lambda_seg"),
        ("[losses]\nlambda_style = -1.0", "losses.lambda_style"),
        ("[losses]\nlambda_style = nan", "losses.lambda_style"),
        ("[losses]\nclass_weights = [0.0, 1.0]", "losses.class_weights"),
        ("[optimiser]\nlearning_rate = 0.0", "optimiser.learning_rate"),
        ("[optimiser]\nlearning_rate = nan", "optimiser.learning_rate"),
        ("[optimiser]\ncode_learning_rate = -1e-6", "optimiser.code_learning_rate"),
        ("[optimiser]\nbetas = [0.0, 1.0]", "optimiser.betas"),
        ("[optimiser]\nweight_decay = -1e-4", "optimiser.weight_decay"),
        ("[optimiser]\nema_decay = 1.0", "optimiser.ema_decay"),
        ("[losses]\nlambda_cyc = -1.0", "losses.lambda_cyc"),
        ("[losses]\nlambda_inter = nan", "losses.lambda_inter"),
        ("[losses]\nr1_every = 0", "losses.r1_every"),
        ("[losses]\nds_iterations = 0", "losses.ds_iterations"),
        ("[tasks]\ninter_to_intra = -1.0", "tasks.inter_to_intra"),
        ("[tasks]\nintra_to_mask = 0.0", "tasks.intra_to_mask"),
        ("[schedule]\nadaptation = 0\ndistillation = 0", "schedule"),
        ("[schedule]\nsupervised = -1", "schedule.supervised"),
        ("[schedule]\ndistillation = -1", "schedule.distillation"),
        ("[schedule]\naccumulate = 0", "schedule.accumulate"),
        ("[schedule]\nbatch_size = 0", "schedule.batch_size"),
        ("[schedule]\nmilestones = [0.5, 1.5]", "schedule.milestones"),
        ("[schedule]\ndecay_factor = 0.0", "schedule.decay_factor"),
        ("[schedule]\ncoarse_size = 100", "schedule.coarse_size"),
        ("[schedule]\ncoarse_size = 16", "schedule.coarse_size"),
        ("[schedule]\ncoarse_share = 1.5", "schedule.coarse_share"),
        ("[augmentation]\nflip = 1.5", "augmentation.flip"),
        ("[augmentation]\nscale = [1.3, 0.7]", "augmentation.scale"),
        ("[augmentation]\nnoise = -0.1", "augmentation.noise"),
        ("[run]\nseed = -1", "run.seed"),
        ("[run]\nseed = 4294967296", "run.seed"),
        ("[run]\nvalidate_every = 0", "run.validate_every"),
        ("[run]\nsave_every = 0", "run.save_every"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_field_and_the_file(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.toml: {field} must "):
        read_text(tmp_path, text)


@pytest.mark.parametrize("content", [b"width: 16\n", b"[network\n", b"\xff\xfe\x00", b"\x89PNG\r\n"])
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.toml: cannot be read"):
        read_config(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=rf"{path.name}: cannot be read"):
            read_config(path)


def test_an_unknown_configuration_lists_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=rf"no configuration 'edgy'; there are {', '.join(SHIPPED)}"):
        config_path("edgy")


def test_a_toml_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert config_path(str(tmp_path / "own.toml")) == tmp_path / "own.toml"


def test_stages_follow_each_other_and_each_begins_at_no_share() -> None:
    schedule = ScheduleConfig(supervised=2, adaptation=4, distillation=2)
    assert schedule.iterations == 8
    supervised, adaptation, distillation = Stage
    assert [schedule.stage(i) for i in range(9)] == [
        (supervised, 0),
        (supervised, 0.5),
        *((adaptation, share) for share in (0, 0.25, 0.5, 0.75)),
        (distillation, 0),
        (distillation, 0.5),
        (distillation, 1),
    ]


@pytest.mark.parametrize("absent", ["supervised", "adaptation", "distillation"])
def test_a_stage_without_iterations_is_passed_over(absent: str) -> None:
    schedule = replace(ScheduleConfig(supervised=3, adaptation=3, distillation=3), **{absent: 0})
    found = [schedule.stage(i)[0].value for i in range(6)]
    assert found == [name for name in ("supervised", "adaptation", "distillation") if name != absent for _ in range(3)]


names = st.text(st.characters(codec="utf-8"), max_size=12)
shares = st.floats(0, 1)
positive = st.floats(0, 100, exclude_min=True)
sizes = st.integers(2, 40).map(lambda n: 16 * n)
configurations = st.builds(
    TrainingConfig,
    name=names,
    network=st.builds(NetworkConfig, st.integers(1, 512), sizes, st.booleans(), st.booleans()),
    data=st.builds(DataConfig, *(st.lists(names, min_size=least).map(tuple) for least in (1, 0, 0))),
    losses=st.builds(LossConfig, positive, shares, st.tuples(positive, positive), r1_every=st.integers(1, 16)),
    tasks=st.builds(TaskConfig, shares, shares, shares, shares, positive, shares),
    optimiser=st.builds(OptimiserConfig, positive, positive, st.just((0.5, 0.9)), shares, st.floats(0, 0.999)),
    schedule=st.builds(
        ScheduleConfig,
        supervised=st.integers(0, 10**9),
        adaptation=st.integers(1, 10**9),
        distillation=st.integers(0, 10**9),
        batch_size=st.integers(1, 64),
        accumulate=st.integers(1, 64),
        decay=st.sampled_from(["steps", "cosine"]),
        milestones=st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True)).map(tuple),
        decay_factor=st.floats(0, 1, exclude_min=True),
        coarse_size=st.just(0) | sizes,
        coarse_share=shares,
        warm_start_self=st.booleans(),
    ),
    augmentation=st.builds(AugmentationConfig, st.booleans(), flip=shares, noise=shares),
    run=st.builds(RunConfig, st.integers(0, 2**32 - 1), st.sampled_from(["fp32", "bf16"])),
)


@given(configurations)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_configuration_survives_being_written_as_toml(tmp_path: Path, config: TrainingConfig) -> None:
    assert read_text(tmp_path, config.to_toml()) == config


def test_toml_spells_out_the_defaults() -> None:
    text = TrainingConfig().to_toml()
    for line in ("[losses]", "lambda_seg = 5.0", "[schedule]", "adaptation = 40000", "[tasks]", 'decay = "steps"'):
        assert line in text.splitlines()


def test_the_content_hash_follows_every_field() -> None:
    config = TrainingConfig()
    assert config.content_hash() == TrainingConfig().content_hash()
    others = [
        replace(config, name="other"),
        replace(config, network=replace(config.network, width=32)),
        replace(config, augmentation=replace(config.augmentation, gamma=(0.5, 2.1))),
        replace(config, run=replace(config.run, seed=2)),
    ]
    assert len({other.content_hash() for other in [config, *others]}) == 5


def test_fields_can_be_changed_on_reading() -> None:
    changes = ["network.width=32", 'name="wide"', "losses.class_weights=[1, 2]", "run.channels_last=true"]
    config = read_config(config_path("edge"), changes)
    assert (config.network.width, config.name) == (32, "wide")
    assert config.losses.class_weights == (1.0, 2.0)
    assert config.run.channels_last
    assert config.data == read_config(config_path("edge")).data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("network.width", "is not one table.field=value"),
        ("network.width=", "is not one table.field=value"),
        ("a=1\nb=2", "is not one table.field=value"),
        ("network.widht=32", "unknown field network.widht"),
        ("network.width='32'", "network.width must be int"),
        ("network=3", "network must be a table"),
        ("losses.lambda_seg=-1", "losses.lambda_seg must not be negative"),
    ],
)
def test_a_wrong_change_is_refused(change: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_config(config_path("edge"), [change])
