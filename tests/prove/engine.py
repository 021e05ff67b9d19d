"""The Pulumi engine in small: what of it decides whether an app gets lost, and nothing else.

Modelled on pkg/v3 3.258 (`step_generator.go`, `deployment_executor.go`, `dependency_graph.go`), as
`up --continue-on-error` runs it, one step after the other. State is saved after each step that has succeeded
and only then. Numbers are floats, null members are dropped (`process`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pulumi.dynamic import ResourceProvider

from tests.prove.process import HungError, OperationError, Process, Props, ProviderGoneError


@dataclass(frozen=True)
class Resource:
    """A resource in state."""

    name: str
    kind: type[ResourceProvider]
    id: str
    inputs: Props
    outputs: Props
    depends: tuple[str, ...]
    delete: bool = False
    """It was replaced and waits for its deletion."""
    pending_replacement: bool = False
    """It was deleted to make room for its replacement, which does not exist yet."""


@dataclass(frozen=True)
class Goal:
    """A resource as the program declares it."""

    name: str
    kind: type[ResourceProvider]
    inputs: Callable[[Mapping[str, Resource]], Props]
    """From the resources that it depends on, by name."""
    depends: tuple[str, ...] = ()
    delete_before_replace: bool = False


@dataclass
class Run:
    """What a run of the engine did."""

    changes: list[str] = field(default_factory=list)
    """Steps that have changed something, such as `update vllm`."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Steps that failed, with the provider's message."""
    broken_off: bool = False
    """The provider or the engine ended in the middle, or an operation never did."""
    hung: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether everything went well."""
        return not self.failures and not self.broken_off


class _StoppedError(Exception):
    """An error of a check or a diff: the engine plans no further."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


class MiniEngine:
    """Runs programs against one provider process at a time, and keeps the state."""

    def __init__(self, process: Process, watch: Callable[[str], None]) -> None:
        self.process = process
        """May be exchanged between runs."""
        self.state: list[Resource] = []
        self._watch = watch
        """Is told each step before it is made."""

    def up(self, goals: Sequence[Goal]) -> Run:
        """`pulumi up --continue-on-error`."""
        return self._run(lambda run: self._up(run, goals))

    def refresh(self) -> Run:
        """`pulumi refresh --clear-pending-creates`; a resource that cannot be read stays as it is."""
        return self._run(self._refresh)

    def destroy(self) -> Run:
        """`pulumi destroy`."""
        return self._run(self._destroy)

    def living(self, name: str) -> Resource | None:
        """The resource of that name that is not on its way out."""
        found = (item for item in self.state if item.name == name and not item.delete)
        return next(found, None)

    def _run(self, steps: Callable[[Run], None]) -> Run:
        run = Run()
        try:
            steps(run)
        except _StoppedError as error:
            run.failures.append((error.step, str(error)))
        except (ProviderGoneError, HungError) as error:
            run.broken_off, run.hung = True, isinstance(error, HungError)
            run.failures.append(("the provider", str(error)))
        return run

    def _up(self, run: Run, goals: Sequence[Goal]) -> None:
        before = list(self.state)
        missing: set[str] = set()
        errored: list[str] = []
        for goal in goals:
            if missing.intersection(goal.depends):
                missing.add(goal.name)
                continue
            try:
                self._register(run, goal)
            except OperationError as error:
                run.failures.append((goal.name, str(error)))
                missing.add(goal.name)
                errored.append(goal.name)
        wanted = {goal.name for goal in goals}
        spared = [item for name in errored for item in _dependencies(name, before)]
        for item in reversed(self.state[:]):
            if item.name not in wanted and item.pending_replacement:
                self.state.remove(item)
            elif (item.delete or item.name not in wanted) and not _among(item, spared):
                try:
                    self._delete(run, item)
                except OperationError as error:
                    run.failures.append((f"delete {item.name}", str(error)))
                    spared += _dependencies_of(item, before)

    def _register(self, run: Run, goal: Goal) -> None:
        known = {item.name: item for name in goal.depends if (item := self.living(name)) is not None}
        given = goal.inputs(known)
        old = self.living(goal.name)
        self._watch(f"check {goal.name}")
        if old is None or old.pending_replacement:
            inputs = self._check(goal, None, given)
            self._create(run, goal, inputs, instead_of=old)
            return
        inputs = self._check(goal, old.inputs, given)
        try:
            changes, replaces = self.process.diff(goal.kind, old.id, old.outputs, inputs)
        except OperationError as error:
            raise _StoppedError(goal.name, str(error)) from None
        if replaces:
            # A replacement is checked like a first creation.
            inputs = self._check(goal, None, given)
            if goal.delete_before_replace:
                self._delete(run, old, keep=replace(old, pending_replacement=True))
                old = self.living(goal.name)
                self._create(run, goal, inputs, instead_of=old)
            else:
                self._create(run, goal, inputs, replaced=old)
        elif changes:
            run.changes.append(self._step("update", goal.name))
            outputs = self.process.update(goal.kind, old.id, old.outputs, inputs)
            self._save(old, replace(old, inputs=inputs, outputs=outputs, depends=goal.depends))
        else:
            self._save(old, replace(old, inputs=inputs, depends=goal.depends))

    def _check(self, goal: Goal, olds: Props | None, news: Props) -> Props:
        try:
            return self.process.check(goal.kind, olds, news)
        except OperationError as error:
            raise _StoppedError(goal.name, str(error)) from None

    def _create(
        self,
        run: Run,
        goal: Goal,
        inputs: Props,
        instead_of: Resource | None = None,
        replaced: Resource | None = None,
    ) -> None:
        run.changes.append(self._step("create", goal.name))
        id_, outputs = self.process.create(goal.kind, inputs)
        new = Resource(goal.name, goal.kind, id_, inputs, outputs, goal.depends)
        if instead_of is not None:
            self._save(instead_of, new)
            return
        if replaced is not None:
            self._save(replaced, replace(replaced, delete=True))
        self.state.append(new)

    def _delete(self, run: Run, item: Resource, keep: Resource | None = None) -> None:
        run.changes.append(self._step("delete", item.name))
        self.process.delete(item.kind, item.id, item.outputs)
        self._save(item, keep)

    def _refresh(self, run: Run) -> None:
        for item in self.state[:]:
            if item.pending_replacement:
                continue
            self._step("read", item.name)
            try:
                seen = self.process.read(item.kind, item.id, item.inputs, item.outputs)
            except OperationError as error:
                run.failures.append((f"read {item.name}", str(error)))
                continue
            if seen is None:
                run.changes.append(f"drop {item.name}")
                self._save(item, None)
                continue
            inputs, outputs = seen
            if (inputs, outputs) != (item.inputs, item.outputs):
                run.changes.append(f"refresh {item.name}")
                self._save(item, replace(item, inputs=inputs, outputs=outputs))

    def _destroy(self, run: Run) -> None:
        failed: list[Resource] = []
        for item in reversed(self.state[:]):
            if item.pending_replacement:
                self._save(item, None)
            elif not _among(item, failed):
                try:
                    self._delete(run, item)
                except OperationError as error:
                    run.failures.append((f"delete {item.name}", str(error)))
                    failed += _dependencies_of(item, self.state)

    def _step(self, verb: str, name: str) -> str:
        step = f"{verb} {name}"
        self._watch(step)
        return step

    def _save(self, old: Resource, new: Resource | None) -> None:
        place = next(index for index, item in enumerate(self.state) if item is old)
        self.state[place : place + 1] = [] if new is None else [new]


def _dependencies(name: str, state: Sequence[Resource]) -> list[Resource]:
    """All that the living resource of a name depends on; [] when there was none."""
    found = [item for item in state if item.name == name and not item.delete]
    return _dependencies_of(found[0], state) if found else []


def _dependencies_of(resource: Resource, state: Sequence[Resource]) -> list[Resource]:
    found: list[Resource] = []
    for name in resource.depends:
        same = [item for item in state if item.name == name]
        # One that lives refers to what lives, where there are two; one on its way out to the old one.
        same.sort(key=lambda item: item.delete != resource.delete)
        for item in same[:1]:
            found += [item, *_dependencies_of(item, state)]
    return found


def _among(item: Resource, others: Sequence[Resource]) -> bool:
    return any((item.name, item.id) == (other.name, other.id) for other in others)


def ids(state: Sequence[Resource], kind: type[ResourceProvider]) -> set[str]:
    """Ids of the resources of a kind that exist according to state."""
    return {item.id for item in state if item.kind is kind and not item.pending_replacement}
