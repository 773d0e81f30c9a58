"""Run the points of a tuning: what is missing or stale of them, each an ordinary trial."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.local import trial_threads
from bertopt_bench.dispatch.running import describe_session, prepare_texts
from bertopt_bench.dispatch.sessions import SessionRun, utc_now
from bertopt_bench.matrix.cells import plan_trials
from bertopt_bench.matrix.protocols import check_text
from bertopt_bench.measure.machine import describe_machine
from bertopt_bench.measure.provenance import package_code
from bertopt_bench.results.pending import latest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.tuning import Tuning
    from bertopt_bench.results.pending import Pending
    from bertopt_bench.results.record import Record
    from bertopt_bench.results.store import ResultsFolder


@dataclass(slots=True)
class TuningRun:
    """One invocation of `tune`: a session that begins with the first trial that is missing."""

    tuning: Tuning
    store: ResultsFolder
    display: Display
    capabilities: Mapping[str, Any]
    code: Mapping[str, Any] = field(default_factory=package_code)
    order_seed: int = field(default_factory=lambda: secrets.randbelow(2**32))
    _texts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _session: SessionRun | None = None

    def prepare(self) -> None:
        """Prepare the text of every arm; of those that cannot run here say why.

        Raises:
            UserError: the text is not the one that a protocol names.
        """
        for warning in self.store.warnings:
            self.display.say(f"warning: {warning}")
        cells = [arm.cell for arm in self.tuning.arms]
        self._texts = dict(prepare_texts(self.tuning.matrix, cells, self.display))
        named = self.tuning.document.get("protocol", {}).get("text_sha256", "")
        for text in self._texts.values():
            check_text(self.tuning.matrix.name, named, text["text_sha256"], "of this machine")
        for cell in cells:
            if cell.skip is not None:
                self.display.say(f"'{cell.label}' cannot run here: {cell.skip}")

    def run(self, cells: Sequence[tuple[str, Cell]], seeds: Sequence[int], what: str) -> None:
        """Run what is missing or stale of some cells, each named by its arm, on some seeds."""
        bases = {arm.name: arm.cell.id for arm in self.tuning.arms}
        for arm, cell in cells:
            if bases[arm] in self._texts:
                self._texts[cell.id] = self._texts[bases[arm]]
        matrix = replace(self.tuning.matrix, seeds=tuple(seeds))
        plans = plan_trials([cell for _, cell in cells], matrix, self.order_seed)
        pending = self.store.pending(plans, self.code, self._texts)
        for reason, count in pending.reasons().items():
            self.display.say(f"{count} trials run again, the old records are kept: {reason}")
        if not pending.plans:
            return
        if self._session is None:
            self._session = self._start(cells, pending)
        self.display.say(f"{what}: {len(pending.plans)} trials")
        self._session.run(pending.plans)

    def records(self) -> dict[tuple[str, int], list[Record]]:
        """Give every record by cell and seed, the one that counts last."""
        from bertopt_bench.results.reading import read_folder

        every = read_folder(self.store.path).records if self.store.has_sessions else ()
        found: dict[tuple[str, int], list[Record]] = {}
        for record in every:
            found.setdefault((record.cell_id, record.seed), []).append(record)
        counted = latest(every)
        for (cell_id, seed, *_), record in counted.items():
            row = found[cell_id, seed]
            row.append(row.pop(row.index(record)))
        return found

    def end(self) -> dict[str, int]:
        """Close the session, if any trial ran; give how many ended how."""
        if self._session is None:
            return {}
        self.store.append_session_event(
            {
                "kind": "end",
                "session": self._session.session,
                "at_utc": utc_now(),
                "counts": self._session.counts,
                "load": describe_machine()["load"],
            }
        )
        return self._session.counts

    def _start(self, cells: Sequence[tuple[str, Cell]], pending: Pending) -> SessionRun:
        matrix = replace(self.tuning.matrix, digest=self.tuning.digest)
        known: dict[str, Any] = {
            "capabilities": self.capabilities,
            "code": self.code,
            "order_seed": self.order_seed,
        }
        fields = describe_session(matrix, [cell for _, cell in cells], pending, **known)
        fields["declared"]["tuning"] = self.tuning.declared()
        session = self.store.start_session(fields)
        told: dict[str, Any] = {"timing": matrix.timing, "texts": self._texts, "code": self.code}
        told |= {"threads": trial_threads(), "measure": matrix.measure}
        return SessionRun(session, self.store, self.display, **told)
