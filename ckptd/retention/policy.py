"""The policy of one model directory: which rules keep a checkpoint, and the limits around them.

A policy is plain data. The names of its fields are the keys in YAML and the options of the
command line; the defaults stand here and nowhere else.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

UNLIMITED: Final = 2**63 - 1
"""`max_to_keep: unlimited`: a rule that keeps everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trash:
    """How long what was removed can be brought back: `seconds`, and at most `checkpoints` of them."""

    seconds: float = 3600.0
    checkpoints: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Rules (united: any one of them keeps a checkpoint) and limits. No rule keeps everything.

    Durations are seconds. Each field's meaning for users stands in `ckptd.config.keys`.
    """

    max_to_keep: int | None = None
    keep_checkpoint_every_n_hours: float | None = None
    keep_every_n_steps: int | None = None
    keep_steps: tuple[int, ...] = ()
    keep_within: float | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    meta_graph: Literal["share", "off"] = "share"
    trash: Trash | None = field(default_factory=Trash)
    max_removals_per_sweep: int = 20
    min_age: float = 0.0

    @property
    def has_rules(self) -> bool:
        """Whether any rule is set; without one everything stays."""
        return any(
            (
                self.max_to_keep is not None,
                self.keep_checkpoint_every_n_hours is not None,
                self.keep_every_n_steps is not None,
                bool(self.keep_steps),
                self.keep_within is not None,
                self.keep_hourly is not None,
                self.keep_daily is not None,
                self.keep_weekly is not None,
            )
        )
