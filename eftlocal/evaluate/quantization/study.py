"""What quantizing each role does: which role needs the bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...registry import ROLES
from ...tables import Column, Table
from ..measures import JUDGES, MEASURES, asked, bootstrap, judge, thinned
from ..questions import Question
from ..report import Claim, Section
from ..statistics import Bootstrap, Judged
from ..study import Setting
from ..systems import System, greedy
from ..verdicts import all_hold, decided
from ..work import Work, records
from .claims import claims
from .comparing import Comparing
from .found import Found, crossed, nested
from .passages import Passages
from .subject import PAIRED, PARTS, Folder, Subject, embedded
from .tables import by_bits, cancelling, dynamic, effects, mixtures

_WORSE = 0.03

INTRO = (
    "Each role's file is quantized anew and scores the same tokens as the file as it is: replies "
    "of the fused models, or texts that were given. The rows are fused as in decoding, with one "
    "part quantized and the others as they are, and compared with the fused distribution of all "
    "files as they are.",
    "Brackets hold 95 % intervals of a bootstrap that draws texts, with all tokens in them, and "
    "models, where there are several draws of them; ratios are of the same draws.",
)
ABOUT_FAMILY = (
    "The embedded family is packed as Q8_0. It is unpacked to 32-bit floats here and changed so "
    "that it computes the same but lies on no grid of Q8_0: otherwise packing it again would cost "
    "nothing. This is done several times, because each draw is rounded otherwise and one model may "
    "be lucky: all draws read the same texts, and share the questions whose replies are judged.",
    "All matrices get the type that is named, the embeddings included (llama.cpp's usual mixtures "
    "leave those with more bits). Models with rows of 64 and 192 weights suffer far more from few "
    "bits than real ones do: compare roles with each other, and look at your own models for "
    "absolute numbers.",
    JUDGES,
)


@dataclass(frozen=True)
class Quantization:
    """The study; see `study.Study`.

    Attributes:
        subject: models, types and texts; None takes the embedded family and its questions.
        command: gives this section alone.
        n_draws: how often the embedded family is taken off its grid and quantized.
        files: what the section tells of the files that were named.
    """

    subject: Subject | None = None
    command: str = "eftlocal eval quantization"
    n_draws: int = 4
    files: Mapping[str, str] = field(default_factory=dict)

    def work(self, setting: Setting) -> Sequence[Work]:
        """The texts, the comparisons, and for the embedded family replies to all questions."""
        works: list[Work] = []
        subjects = self._subjects(setting)
        for subject in subjects:
            works += [_comparing(subject, setting).passages, _comparing(subject, setting)]
        for subject, questions in _shared_out(subjects, setting):
            works += [asked(system, questions) for system in _systems(subject, setting)]
        return works

    def _subjects(self, setting: Setting) -> tuple[Subject, ...]:
        if self.subject is None:
            return embedded(setting, self.n_draws)
        return (self.subject.thinned(setting.every),)

    def section(self, setting: Setting) -> Section:
        """The tables, the figure, and what they say."""
        subjects = self._subjects(setting)
        subject = subjects[0]
        compared = [_comparing(one, setting) for one in subjects]
        n_passages = len(compared[0].passages.items)
        names = subject.clusters or tuple(map(str, range(n_passages)))
        passages = Bootstrap.over(names[:n_passages], setting.seed, setting.resamples)
        draws = crossed(passages, len(subjects), setting.seed)
        known = [records(one, setting.store) for one in compared]
        found = Found.of(compared[0].roles, known, draws)
        tables = [effects(found), cancelling(found), mixtures(found), dynamic(found)]
        said = list(claims(found))
        if subject.judged:
            scores = _Scores.of(subjects, setting)
            tables.insert(1, scores.table())
            said += scores.claims()
        return Section(
            name="quantization",
            title="Which role needs the bits",
            intro=(*INTRO, *(ABOUT_FAMILY if subject.judged else ())),
            command=self.command,
            settings={
                **self.files,
                "texts": str(n_passages),
                "draws of the models": str(len(subjects)),
                "tokens, of all draws": str(int(found.lengths.sum())),
                "types": ", ".join(found.types),
                "mixture": "one type for all matrices" if subject.pure else "llama.cpp's",
                "files": "; ".join(
                    f"{role}: {found.packed['', role].text}, {found.megabytes('', role):.2f} MB"
                    for role in ROLES
                ),
            },
            claims=tuple(said),
            tables=tuple(tables),
            figures=(by_bits(found),),
        )


def _comparing(subject: Subject, setting: Setting) -> Comparing:
    return Comparing(Passages(subject), subject.quantized(), setting.store)


def _shared_out(
    subjects: Sequence[Subject], setting: Setting
) -> list[tuple[Subject, list[Question]]]:
    """Every question goes to one of the subjects that are judged."""
    judged = [subject for subject in subjects if subject.judged]
    if not judged:
        return []
    questions = thinned("questions.jsonl", Question, setting)
    return [(subject, questions[i :: len(judged)]) for i, subject in enumerate(judged)]


def _system(subject: Subject, setting: Setting, name: str, part: str) -> System:
    """The subject with one part quantized."""
    folder = Folder.of(setting.store)
    files = dict(subject.paths())
    for role in PARTS[part]:
        files[role] = folder.quantize(files[role], name, subject.pure)
    models = replace(subject.models, entry=None, files=files)
    return System(f"{part} {name}", models, greedy(alpha=1.0))


def _unquantized(subject: Subject) -> System:
    return System("as they are", subject.models, greedy(alpha=1.0))


def _systems(subject: Subject, setting: Setting) -> list[System]:
    """Whose replies are judged, the models as they are first."""
    return [
        _unquantized(subject),
        *(_system(subject, setting, name, part) for name in subject.judged for part in PARTS),
    ]


@dataclass(frozen=True)
class _Scores:
    """(Q,) judgements of each system: (type, part) -> measure -> judged; ("", "") as they are."""

    judged: dict[tuple[str, str], dict[str, Judged]]
    draws: Bootstrap

    @classmethod
    def of(cls, subjects: Sequence[Subject], setting: Setting) -> _Scores:
        keys = [("", ""), *((name, part) for name in subjects[0].judged for part in PARTS)]
        shared = _shared_out(subjects, setting)
        systems = [_systems(subject, setting) for subject, _ in shared]
        judged = {
            key: {
                measure: np.concatenate(
                    [
                        judge(own[i], questions, setting.store, measure)
                        for own, (_, questions) in zip(systems, shared, strict=True)
                    ]
                )
                for measure in MEASURES
            }
            for i, key in enumerate(keys)
        }
        questions = [question for _, own in shared for question in own]
        of = [i for i, (_, own) in enumerate(shared) for _ in own]
        return cls(judged, nested(bootstrap(questions, setting), of, setting.seed))

    def table(self) -> Table:
        """Shares, and differences to the models as they are."""
        whole = self.judged["", ""]
        rows = [("as they are", "-", *map(self.draws.share, whole.values()), None, None, None)]
        for (name, part), own in self.judged.items():
            if name:
                differences = [self.draws.difference(own[m], whole[m]) for m in MEASURES]
                rows.append((name, part, *map(self.draws.mean, own.values()), *differences))
        columns = (
            Column("type", "type"),
            Column("quantized", "quantized"),
            *(Column(measure, measure, 3) for measure in MEASURES),
            *(Column(f"{measure}_difference", f"{measure}, change", 3) for measure in MEASURES),
        )
        note = "Intervals of quantized models are of a bootstrap that draws models and questions."
        return Table("Replies with one part quantized, alpha 1", columns, tuple(rows), (note,))

    def claims(self) -> list[Claim]:
        """Whether all roles can have the finest type, and whether the pair should be alike."""
        names = [name for name, _ in self.judged if name]
        return [self._as_good(names[0]), self._alike(names[-1])]

    def _alike(self, name: str) -> Claim:
        pair, tuned = (self.judged[name, part] for part in (PAIRED, "tuned"))
        differences = {m: self.draws.difference(pair[m], tuned[m]) for m in MEASURES}
        return Claim(
            f"With tuned in {name}, replies are better where the reference is quantized alike.",
            decided(differences["both"]),
            "quantized alike minus tuned only: "
            + "; ".join(f"{m} {d.text(3)}" for m, d in differences.items()),
        )

    def _as_good(self, name: str) -> Claim:
        whole = self.judged["", ""]
        own = self.judged[name, "all three"]
        differences = {m: self.draws.difference(own[m], whole[m]) for m in MEASURES}
        return Claim(
            f"With {name} in all three roles replies are as good as with the models as they are, "
            f"within {100 * _WORSE:.0f} % of the questions.",
            all_hold(decided(difference, -_WORSE) for difference in differences.values()),
            "; ".join(f"{m} {d.text(3)}" for m, d in differences.items()),
        )
