"""Every key of a configuration, in one table: name, values, default and meaning.

The policy keys are the fields of `ckptd.retention.policy.Policy`: in YAML they stand in `defaults`,
in a policy and in an entry of `model_dirs`, and on a command line they are options of the same name
(`--max-to-keep 3`). Defaults are taken from the dataclasses. The sample, config/ckptd.yaml, holds
the descriptions word for word, and config/ckptd.schema.json is made of this table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final

from ckptd.config.scalars import (
    LARGEST_STEP,
    LONGEST_SOCKET_PATH,
    OFF,
    AbsolutePath,
    Choice,
    Count,
    Duration,
    Exactly,
    Hours,
    Name,
)
from ckptd.config.shapes import Entries, Key, NamedSections, Section, SetOf
from ckptd.config.values import Config, LogSettings
from ckptd.retention.policy import UNLIMITED, Policy, Trash

_POLICY: Final = Policy()
_TRASH: Final = Trash()
_LOG: Final = LogSettings()
_CONFIG: Final = Config(version=1)

_NO_RULE: Final[Mapping[str, Any]] = MappingProxyType({OFF: None})
_COUNT_OR_OFF: Final = Count(words=_NO_RULE, zero="for no such rule, write off")


def _table(keys: Iterable[Key]) -> Mapping[str, Key]:
    return MappingProxyType({key.name: key for key in keys})


def _build_trash(values: Mapping[str, Any]) -> Trash:
    fields = {"keep_for": "seconds", "checkpoints": "checkpoints"}
    return Trash(**{fields[name]: value for name, value in values.items()})


def _take_trash_apart(trash: Trash) -> Mapping[str, Any]:
    return {"keep_for": trash.seconds, "checkpoints": trash.checkpoints}


class _TrashText(Duration):
    """The short form of `trash`: for how long, with the default number of checkpoints."""

    __slots__ = ()

    def _parse(self, text: str) -> Any:
        return Trash(seconds=super()._parse(text))


TRASH_KEYS: Final = _table(
    (
        Key(
            name="keep_for",
            shape=Duration(above_zero=True, zero="for no trash at all, write trash: off"),
            default=_TRASH.seconds,
            description="How long a removed checkpoint can be brought back.",
            example="6h",
        ),
        Key(
            name="checkpoints",
            shape=Count(zero="for no trash at all, write trash: off"),
            default=_TRASH.checkpoints,
            description="How many removed checkpoints can be brought back; the oldest goes first.",
            example="2",
        ),
    )
)

POLICY_KEYS: Final = _table(
    (
        Key(
            name="max_to_keep",
            shape=Count(
                words=MappingProxyType({"unlimited": UNLIMITED, OFF: None}),
                ranges=True,
                zero="with 0, TensorFlow's Saver keeps every checkpoint and its CheckpointManager "
                "gives an error; to keep every checkpoint, write unlimited",
                negative="below 0, TensorFlow's Saver deletes the checkpoint that it has just "
                "written and its CheckpointManager gives an error; to keep every checkpoint, "
                "write unlimited",
            ),
            default=_POLICY.max_to_keep,
            description="Keep the newest N complete checkpoints; `unlimited` keeps all of them.",
            example="5",
            also_known_as=(
                "keep_last",
                "keep_latest",
                "keep_n",
                "num_to_keep",
                "save_top_k",
                "save_total_limit",
                "total_limit",
            ),
        ),
        Key(
            name="keep_checkpoint_every_n_hours",
            shape=Hours(
                words=_NO_RULE,
                zero="with 0, TensorFlow's Saver keeps every checkpoint and its "
                "CheckpointManager keeps none; to keep every checkpoint, write "
                "max_to_keep: unlimited, and for no such rule, write off",
            ),
            default=_POLICY.keep_checkpoint_every_n_hours,
            description=(
                "Preserve for good a checkpoint that leaves the newest `max_to_keep`, if it was "
                "saved at least N hours after the last one preserved; as CheckpointManager of "
                "TensorFlow does. A number of hours, without a unit."
            ),
            example="2",
            also_known_as=("keep_every", "keep_every_n_hours", "keep_every_hours"),
        ),
        Key(
            name="keep_every_n_steps",
            shape=_COUNT_OR_OFF,
            default=_POLICY.keep_every_n_steps,
            description="Keep each checkpoint whose global_step is a multiple of N.",
            example="10000",
            also_known_as=("keep_period", "keep_every_steps"),
        ),
        Key(
            name="keep_steps",
            shape=SetOf(item=Count(minimum=0, maximum=LARGEST_STEP), example="[1000, 20000]"),
            default=_POLICY.keep_steps,
            description="Keep the checkpoints with these values of global_step.",
            example="[1000, 20000]",
        ),
        Key(
            name="keep_within",
            shape=Duration(words=_NO_RULE, above_zero=True, zero="for no such rule, write off"),
            default=_POLICY.keep_within,
            description=(
                "Keep what was saved within this time before the newest checkpoint, so that a "
                "run that has stopped loses nothing."
            ),
            example="6h",
        ),
        Key(
            name="keep_hourly",
            shape=_COUNT_OR_OFF,
            default=_POLICY.keep_hourly,
            description="Keep the last checkpoint of each of the newest N hours that have any.",
            example="24",
        ),
        Key(
            name="keep_daily",
            shape=_COUNT_OR_OFF,
            default=_POLICY.keep_daily,
            description="Keep the last checkpoint of each of the newest N days that have any (UTC).",
            example="7",
        ),
        Key(
            name="keep_weekly",
            shape=_COUNT_OR_OFF,
            default=_POLICY.keep_weekly,
            description=(
                "Keep the last checkpoint of each of the newest N weeks that have any (UTC, from "
                "Monday)."
            ),
            example="4",
        ),
        Key(
            name="meta_graph",
            shape=Choice(words=MappingProxyType({"share": "share", OFF: OFF})),
            default=_POLICY.meta_graph,
            description=(
                "With `share`, identical .meta files are stored once, and the graph of the run "
                "stays with a checkpoint that is kept; with `off`, each .meta file is left as the "
                "trainer wrote it and goes with its checkpoint."
            ),
            example="share",
        ),
        Key(
            name="trash",
            shape=Section(
                keys=TRASH_KEYS,
                example="{keep_for: 1h, checkpoints: 2}",
                short=_TrashText(
                    words=_NO_RULE, above_zero=True, zero="for no trash at all, write off"
                ),
                build=_build_trash,
                take_apart=_take_trash_apart,
            ),
            default=_POLICY.trash,
            description=(
                "What was removed stays in a trash inside the model directory, where `ckptd undo` "
                "finds it, and takes space until `keep_for` is over, more than `checkpoints` "
                "are there, or space runs out. A duration alone sets `keep_for`; with `off`, a "
                "removal is final."
            ),
            example="{keep_for: 6h, checkpoints: 2}",
        ),
        Key(
            name="max_removals_per_sweep",
            shape=Count(
                words=MappingProxyType({"unlimited": UNLIMITED}),
                zero="nothing would ever be removed; to keep every checkpoint, write "
                "max_to_keep: unlimited",
            ),
            default=_POLICY.max_removals_per_sweep,
            description=(
                "A brake: a sweep that would remove more checkpoints than this removes none, and "
                "says so, until `ckptd approve` lets it."
            ),
            example="20",
        ),
        Key(
            name="min_age",
            shape=Duration(),
            default=_POLICY.min_age,
            description=(
                "Never remove a checkpoint that was saved less than this time ago; gives readers "
                "that hold no lease the time to finish."
            ),
            example="10m",
        ),
    )
)

_SPACE: Final = (
    "is planned, and not supported yet: remove the key, and limit by max_to_keep meanwhile"
)
_PLANNED: Final = {
    "keep_best": "is planned, and not supported yet: remove the key, and name steps in keep_steps "
    "meanwhile",
    "max_bytes": _SPACE,
    "min_free": _SPACE,
}

_POLICY_SECTION: Final = Section(
    keys=POLICY_KEYS,
    example="max_to_keep: 5",
    planned=_PLANNED,
    elsewhere={
        "path": "belongs in an entry of model_dirs",
        "policy": "belongs in an entry of model_dirs",
    },
)

LOG_KEYS: Final = _table(
    (
        Key(
            name="level",
            shape=Choice(words={word: word for word in ("debug", "info", "warning", "error")}),
            default=_LOG.level,
            description="The least important events that are logged.",
            example="info",
        ),
        Key(
            name="format",
            shape=Choice(words={word: word for word in ("auto", "json", "text")}),
            default=_LOG.format,
            description=(
                "One JSON object per line, or text for people; `auto` is text on a terminal and "
                "JSON elsewhere."
            ),
            example="json",
        ),
    )
)

MODEL_DIRS_KEYS: Final = _table(
    (
        Key(
            name="path",
            shape=AbsolutePath(example="/srv/models/*", glob=True),
            default=None,
            description=(
                "The model directory, as an absolute path. `*`, `?` and `[...]` match names as in "
                "a shell (`[[]` is a bracket), also of directories made later. A directory that "
                "several entries match belongs to the first of them."
            ),
            example="/srv/models/*",
            required=True,
        ),
        Key(
            name="policy",
            shape=Name(),
            default=None,
            description="A name from `policies`, whose keys hold for this entry.",
            example="vision",
        ),
        *POLICY_KEYS.values(),
    )
)

TOP_LEVEL_KEYS: Final = _table(
    (
        Key(
            name="version",
            shape=Exactly(value=1),
            default=None,
            description="The version of this file's format.",
            example="1",
            required=True,
        ),
        Key(
            name="socket",
            shape=AbsolutePath(example="/run/ckptd/ckptd.sock", longest=LONGEST_SOCKET_PATH),
            default=_CONFIG.socket,
            description=(
                "Where clients and commands find the daemon, as an absolute path. Without it, the "
                "daemon listens at the default socket of the host, or of the user who runs it."
            ),
            example="/run/ckptd/ckptd.sock",
        ),
        Key(
            name="rescan_interval",
            shape=Duration(minimum=1.0),
            default=_CONFIG.rescan_interval,
            description=(
                "How often every model directory is listed, whatever the kernel has announced: a "
                "lost event costs at most this time."
            ),
            example="1m",
        ),
        Key(
            name="log",
            shape=Section(
                keys=LOG_KEYS,
                example="level: info",
                build=lambda values: LogSettings(**values),
                take_apart=asdict,
            ),
            default=_LOG,
            description="What the daemon logs, and in which form.",
            example="{level: info, format: json}",
        ),
        Key(
            name="defaults",
            shape=_POLICY_SECTION,
            default={},
            description=(
                "Policy keys for every entry of `model_dirs` whose own keys and policy do not set "
                "them."
            ),
            example="{max_to_keep: 5}",
        ),
        Key(
            name="policies",
            shape=NamedSections(
                name=Name(), section=_POLICY_SECTION, example="vision: {max_to_keep: 5}"
            ),
            default={},
            description="Policy keys under a name, for entries of `model_dirs` to share.",
            example="{vision: {max_to_keep: 5}}",
        ),
        Key(
            name="model_dirs",
            shape=Entries(
                section=Section(
                    keys=MODEL_DIRS_KEYS,
                    example="{path: /srv/models/*, max_to_keep: 5}",
                    planned=_PLANNED,
                ),
                example="- path: /srv/models/*",
            ),
            default=_CONFIG.model_dirs,
            description=(
                "The directories that the daemon watches, each with its policy. The policy keys "
                "of an entry come before those of its `policy`, and these before `defaults`."
            ),
            example="[{path: /srv/models/*, max_to_keep: 5}]",
        ),
    )
)

DOCUMENT: Final = Section(
    keys=TOP_LEVEL_KEYS,
    example="version: 1",
    planned={"metrics": "is planned, and not supported yet: remove the key"},
    elsewhere=dict.fromkeys(
        (*POLICY_KEYS, *_PLANNED),
        "belongs in defaults, in one of policies, or in an entry of model_dirs",
    ),
)
