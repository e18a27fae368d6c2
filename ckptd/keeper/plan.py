"""From a survey to a plan for the whole directory.

Each series is decided by `ckptd.retention`, guards are applied, and what the state files will say
is worked out.

A plan holds the listing that it was made from. It is executed once, by `Keeper.sweep`; what has
changed in between is skipped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.checkpoints.layouts.tensorflow import parse_series
from ckptd.errors import printable
from ckptd.formats.state_file import StateFile, format_state_file
from ckptd.keeper.chronicle import Word, arrange, in_order, remembered
from ckptd.keeper.ledger import FileMark, Known, Ledger, marks_of
from ckptd.keeper.meta_graphs import belongs
from ckptd.keeper.state import Statement, restate, without
from ckptd.keeper.survey import STILL_WRITTEN, Problem, Survey, is_in_the_making
from ckptd.retention.candidate import (
    TOLERANCE,
    Candidate,
    Decision,
    Outcome,
    Reason,
    doubt,
)
from ckptd.retention.plan import Plan, make_plan
from ckptd.retention.policy import UNLIMITED, Policy
from ckptd.retention.preserve import Memory


class Verdict(NamedTuple):
    """One checkpoint and what becomes of it."""

    checkpoint: Checkpoint
    decision: Decision

    @property
    def outcome(self) -> Outcome:
        """Keep, remove or hold."""
        return self.decision.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryPlan:
    """What stays in a model directory, with reasons, what goes, and what is held back."""

    at: float
    policy: Policy
    survey: Survey
    verdicts: tuple[Verdict, ...]
    ledger: Ledger
    restatements: tuple[tuple[Statement, StateFile], ...]
    problems: tuple[Problem, ...]

    @property
    def path(self) -> str:
        """The model directory."""
        return self.survey.path

    def of(self, outcome: Outcome) -> list[Verdict]:
        """Return the verdicts with this outcome, oldest first within each series."""
        return [verdict for verdict in self.verdicts if verdict.outcome is outcome]

    @property
    def staying(self) -> frozenset[str]:
        """The names that are there afterwards."""
        return frozenset(
            v.checkpoint.name for v in self.verdicts if v.outcome is not Outcome.REMOVE
        )

    def series(self) -> dict[str, list[str]]:
        """Return the names of each series, oldest first."""
        series: dict[str, list[str]] = {}
        for verdict in self.verdicts:
            series.setdefault(verdict.checkpoint.series, []).append(verdict.checkpoint.name)
        return series

    def unverified(self) -> list[Checkpoint]:
        """Return the checkpoints that stay and whose bytes nobody has looked at, newest first."""
        known = self.ledger.verified
        found = [
            verdict
            for verdict in self.verdicts
            if verdict.outcome is not Outcome.REMOVE
            and (
                (verified := known.get(verdict.checkpoint.name)) is None
                or verified.files != marks_of(verdict.checkpoint.tensor_files)
            )
        ]
        found.sort(key=lambda verdict: verdict.decision.candidate.saved_at or 0.0, reverse=True)
        return [verdict.checkpoint for verdict in found]

    def due(self) -> float | None:
        """Return when time alone may change this plan, or None if it never will."""
        times = []
        for verdict in self.verdicts:
            saved_at = verdict.decision.candidate.saved_at
            if saved_at is None or verdict.outcome is not Outcome.KEEP:
                continue
            rules = {reason.rule for reason in verdict.decision.reasons}
            if "min_age" in rules:
                times.append(saved_at + self.policy.min_age)
            if "time_in_doubt" in rules and saved_at > self.at:
                times.append(saved_at - TOLERANCE)
        if any(is_in_the_making(partial, self.at) for partial in self.survey.inventory.partials):
            times.append(self.at + STILL_WRITTEN)
        return min(times, default=None)


def plan_directory(survey: Survey, policy: Policy, now: float) -> DirectoryPlan:
    """Decide what stays in the directory that `survey` saw."""
    ledger = survey.ledger or Ledger()
    words = survey.words()
    series = arrange(tuple(survey.checkpoints.values()), ledger, words)
    protected = _protected(survey)
    plans = {
        name: make_plan(
            candidates,
            policy,
            now=now,
            memory=_memory(
                candidates,
                survey,
                ledger.series.get(name),
                words.get(name, Word()),
                policy,
                now,
            ),
            protected=protected,
        )
        for name, candidates in series.items()
    }
    problems = list(survey.problems)
    plans = _guard(plans, survey, policy, problems)
    verdicts = tuple(
        Verdict(survey.checkpoints[decision.name], decision)
        for plan in plans.values()
        for decision in plan.decisions
    )
    return DirectoryPlan(
        at=now,
        policy=policy,
        survey=survey,
        verdicts=verdicts,
        ledger=_ledger_after(survey, ledger, series, plans),
        restatements=tuple(_restatements(survey, policy, plans, problems, now)),
        problems=tuple(problems),
    )


def _protected(survey: Survey) -> dict[str, list[Reason]]:
    protected: dict[str, list[Reason]] = {}
    for statement in survey.statements:
        if statement.current is not None:
            name = printable(statement.entry.name)
            text = "named by the state file" + ("" if name == "checkpoint" else f" {name}")
            protected.setdefault(statement.current, []).append(Reason("state_file", text))
    for pin in survey.pins.values():
        text = f"pinned: {printable(pin.why)}" if pin.why else "pinned"
        protected.setdefault(pin.name, []).append(Reason("pinned", text))
    return protected


def _memory(
    candidates: Sequence[Candidate],
    survey: Survey,
    known: Memory | None,
    word: Word,
    policy: Policy,
    now: float,
) -> Memory:
    sound = [c for c in candidates if doubt(c.saved_at, now) is None]
    memory = remembered(sound or candidates, known, word, now)
    # A preserved checkpoint that the trainer has saved again, and lists, is a new one.
    anew = {name for name in memory.preserved if _saved_anew(name, survey, word)}
    memory = Memory(memory.last_preserved, memory.preserved - anew)
    if survey.lost and policy.keep_checkpoint_every_n_hours is not None:
        # Which ones were preserved is not known any more: all that no list names might have been.
        unlisted = {c.name for c in candidates if c.name not in word.listed}
        return Memory(memory.last_preserved, memory.preserved | unlisted)
    return memory


def _saved_anew(name: str, survey: Survey, word: Word) -> bool:
    ledger = survey.ledger or Ledger()
    checkpoint, known = survey.checkpoints.get(name), ledger.checkpoints.get(name)
    return (
        checkpoint is not None
        and known is not None
        and name in word.listed
        and known.mark != FileMark.of(checkpoint.index.identity)
    )


def _guard(
    plans: Mapping[str, Plan], survey: Survey, policy: Policy, problems: list[Problem]
) -> dict[str, Plan]:
    """Hold removals back: all where the directory is in doubt, else what is more than the brake allows.

    What a person has approved goes, as long as it is what they saw; the brake counts the rest.
    """
    victims = [
        survey.checkpoints[name] for plan in plans.values() for name in plan.named(Outcome.REMOVE)
    ]
    if not victims:
        return dict(plans)
    holding = next((problem for problem in problems if problem.holds), None)
    if holding is not None:
        reason = Reason("doubt", holding.text)
        return {name: plan.hold(reason) for name, plan in plans.items()}
    approved = survey.held.victims if survey.held is not None and survey.held.approved else {}
    rest = {
        victim.name
        for victim in victims
        if approved.get(victim.name) != FileMark.of(victim.index.identity)
    }
    if len(rest) <= policy.max_removals_per_sweep:
        return dict(plans)
    text = (
        f"{len(rest):,} removals at once, more than max_removals_per_sweep "
        f"({policy.max_removals_per_sweep:,})"
    )
    reason = Reason("max_removals_per_sweep", text)
    problems.append(Problem(f"{text}: all are held back until `ckptd approve` lets them go"))
    return {name: plan.hold(reason, rest) for name, plan in plans.items()}


def _ledger_after(
    survey: Survey,
    ledger: Ledger,
    series: Mapping[str, Sequence[Candidate]],
    plans: Mapping[str, Plan],
) -> Ledger:
    names = {key: [c.name for c in candidates] for key, candidates in series.items()}
    graphs = belongs(names, survey.checkpoints, ledger)
    damaged = survey.damaged()
    checkpoints = {
        candidate.name: Known(
            FileMark.of(survey.checkpoints[candidate.name].index.identity),
            candidate.saved_at if candidate.saved_at is not None else 0.0,
            graphs.get(candidate.name),
        )
        for candidates in series.values()
        for candidate in candidates
    }
    # A damaged checkpoint may be brought back from elsewhere: then it is what it was.
    checkpoints |= {n: known for n, known in ledger.checkpoints.items() if n in damaged}
    # A series of which nothing is left keeps its memory: a run that starts again goes on.
    memories = dict(ledger.series)
    for name, plan in plans.items():
        lost = memories.get(name, plan.memory).preserved & damaged
        memories[name] = Memory(plan.memory.last_preserved, plan.memory.preserved | lost)
    return Ledger(
        checkpoints=checkpoints,
        series=memories,
        latest_graph=ledger.latest_graph,
        graphs=ledger.graphs,
        digests=ledger.digests,
        verified=survey.remembered().verified,
    )


def _restatements(
    survey: Survey,
    policy: Policy,
    plans: Mapping[str, Plan],
    problems: list[Problem],
    now: float,
) -> Iterable[tuple[Statement, StateFile]]:
    """Yield each state file that would say something else after this plan.

    In doubt nothing is set right: what cannot be read today may be read tomorrow, and a trainer that
    starts in between would resume from an older checkpoint.
    """
    if any(problem.holds for problem in problems):
        return
    staying = {
        decision.name: decision
        for plan in plans.values()
        for decision in plan.decisions
        if decision.outcome is not Outcome.REMOVE
    }
    for statement in survey.statements:
        current = statement.current
        if current is None:
            restated = without(statement, lambda name: name not in staying)
        else:
            if current not in staying:
                partial = survey.partial(current)
                if partial is not None and is_in_the_making(partial, now):
                    continue
                current = _successor(current, plans)
                if current is None:
                    problems.append(
                        Problem("the state file cannot be set right: nothing here is complete")
                    )
                    continue
            listed = _listed(current, statement, survey, policy, plans, staying)
            series = survey.checkpoints[current].series
            restated = restate(
                statement,
                current=current,
                listed=listed,
                checkpoints=survey.checkpoints,
                times={n: staying[n].candidate.saved_at or 0.0 for n in (*listed, current)},
                last_preserved=plans[series].memory.last_preserved,
                now=now,
            )
        # The text decides: a time that is not a number is never equal to itself.
        if restated != statement.state and (
            format_state_file(restated) != format_state_file(statement.state)
        ):
            yield statement, restated


def _successor(lost: str, plans: Mapping[str, Plan]) -> str | None:
    """Return the checkpoint to resume from when the named one cannot be: the newest of its series.

    The newest always stays, so that naming it changes nothing in the next plan.
    """
    series, _ = parse_series(lost)
    decisions = plans[series].decisions if series in plans else ()
    if decisions:
        return decisions[-1].name
    newest = [plan.decisions[-1].candidate for plan in plans.values()]
    return in_order(newest, {})[-1].name if newest else None


def _listed(
    current: str,
    statement: Statement,
    survey: Survey,
    policy: Policy,
    plans: Mapping[str, Plan],
    staying: Mapping[str, Decision],
) -> list[str]:
    """Return what the file lists, oldest first: under `max_to_keep` the newest ones, and no others.

    What other rules keep is not listed, as CheckpointManager does not list what it preserves: a
    trainer that takes the list over would count it, and rotate it away.
    """
    word = statement.word()
    listed = [name for name in word.listed if name in staying]
    if policy.max_to_keep is None or policy.max_to_keep == UNLIMITED:
        return listed
    owned = {survey.checkpoints[name].series for name in (*listed, current)}
    rolling = [
        decision.candidate
        for series in sorted(owned)
        for decision in plans[series].decisions
        if any(reason.rule == "max_to_keep" for reason in decision.reasons)
        or (decision.outcome is Outcome.HOLD and decision.name in listed)
    ]
    places = {name: place for place, name in enumerate(word.listed)}
    rolls = any(candidate.name == current for candidate in rolling)
    if not rolls and current in places:
        rolling.append(staying[current].candidate)
    names = [candidate.name for candidate in in_order(rolling, places)]
    # What was saved after the current one and is not named yet is the trainer's to announce.
    announced = names.index(current) if rolls else 0
    return [n for place, n in enumerate(names) if place < announced or n in places or n == current]
