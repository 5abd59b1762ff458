"""Write the folder of a human study from turntables of several methods, and read it: `write_study`, `read_study`.

DIR/page/              index.html, tasks/<annotator>.js, media/: what annotators see, and all that may be published
DIR/assignment.csv     which method stood on which side: keep it from annotators
DIR/links.csv          one page address an annotator
DIR/study.json         the study's id, methods, settings
DIR/answers/           what `im3d study serve` collects
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from eval.assignment import BROKEN, StudyConfig, Task, assign, read_assignment, write_assignment
from eval.page import script_data, web_file
from factory.evaluation.study.media import PAGE, Media, Method
from factory.prompts.foreign_folder import store_files
from factory.storage.interface import ReadableStore, StorageConfig, Store
from factory.storage.read_only import open_read_only
from recon.user_error import UserError

PAGE_FILES = ("look.css", "study.css", "study.js")
RESERVED = (BROKEN, "tie", "all competitors")
"""What results call other things; `ours` too, for competitors."""


def write_study(methods: Sequence[Method], out: Store, config: StudyConfig, limit: int | None = None) -> dict:
    """Write the folder of a study; the first method is compared with every other.

    Args:
        methods: at least two.
        limit: only the first prompts, by prompt_id.

    Returns:
        the record of `study.json`, with counts and named problems.

    Raises:
        UserError: when methods share no prompt, share a label, or `out` already holds a study.
    """
    _refuse(methods, out)
    ours, names = methods[0], sorted(methods[0].turntables)[:limit]
    media = Media(out=out)
    videos = {
        (method.label, name): media.video(method, name)
        for method in methods
        for name in names
        if name in method.turntables
    }
    pairs = _pairs(methods, names, videos)
    tasks = assign(pairs, ours.label, config)
    for name in {task.prompt_id for task in tasks if task.kind == "broken"}:
        videos[BROKEN, name] = media.broken(ours, name, config.seed)
    shown = {name: (ours.turntables[name].prompt, media.image(ours, name)) for _, name in pairs}
    assignment = write_assignment(tasks)
    study = hashlib.sha256(assignment.encode()).hexdigest()[:12]
    annotators = _write_page(out, study, tasks, videos, shown)
    out.put("assignment.csv", assignment.encode())
    out.put("links.csv", "".join(["annotator,page\n", *(f"{n},index.html?a={n}\n" for n in annotators)]).encode())
    record = {
        "study": study,
        **_counts(methods, names, pairs, tasks),
        "videos_reencoded": media.reencoded,
        "without_image": sum(image is None for _, image in shown.values()),
        "problems": [problem for method in methods for problem in method.problems] + media.problems,
        "config": asdict(config),
    }
    out.put("study.json", json.dumps(record, indent=2).encode())
    return record


def _counts(
    methods: Sequence[Method], names: Sequence[str], pairs: Sequence[tuple[str, str]], tasks: Sequence[Task]
) -> dict:
    """What `study.json` counts."""
    ours, *competitors = [method.label for method in methods]
    return {
        "ours": ours,
        "competitors": {other: sum(label == other for label, _ in pairs) for other in competitors},
        "pairs_left_out": len(names) * len(competitors) - len(pairs),
        "questions": len({(t.competitor, t.prompt_id, t.criterion) for t in tasks if t.kind == "question"}),
        "annotators": len({task.annotator for task in tasks}),
        "screens": len(tasks),
    }


def _pairs(
    methods: Sequence[Method], names: Sequence[str], videos: Mapping[tuple[str, str], str | None]
) -> list[tuple[str, str]]:
    """(competitor, prompt_id) where both have a video that plays."""
    ours, *competitors = methods
    return [
        (competitor.label, name)
        for competitor in competitors
        for name in names
        if videos[ours.label, name] and videos.get((competitor.label, name))
    ]


def _refuse(methods: Sequence[Method], out: Store) -> None:
    labels = [method.label for method in methods]
    if len(labels) < 2:
        raise UserError(f"a study compares at least 2 runs; {len(labels)} given")
    taken = set(labels) & set(RESERVED) or set(labels[1:]) & {"ours"}
    if len(set(labels)) < len(labels) or taken or not all(labels):
        raise UserError(
            f"labels are {', '.join(labels)}; give different --labels, none of {', '.join(RESERVED)}, "
            "and the first one alone may be ours"
        )
    if _holds_study(out):
        raise UserError(f"{out.root} already holds a study; answers belong to one assignment, so give another --out")


def _holds_study(store: ReadableStore) -> bool:
    try:
        return bool(store.get("study.json"))
    except KeyError:
        return False


def _write_page(
    out: Store,
    study: str,
    tasks: Sequence[Task],
    videos: Mapping[tuple[str, str], str | None],
    shown: Mapping[str, tuple[str, str | None]],
) -> list[str]:
    """Write the page; returns the annotators. Screens name neither methods nor kinds."""
    sheets: dict[str, list[dict]] = {}
    for task in tasks:
        prompt, image = shown[task.prompt_id]
        screen = {"task": task.task_id, "criterion": task.criterion, "prompt": prompt, "image": image}
        screen |= {side: videos[getattr(task, side), task.prompt_id] for side in ("left", "right")}
        sheets.setdefault(task.annotator, []).append(screen)
    for annotator, screens in sheets.items():
        data = script_data("globalThis.STUDY", {"study": study, "annotator": annotator, "tasks": screens})
        out.put(f"{PAGE}/tasks/{annotator}.js", data.encode())
    for name in PAGE_FILES:
        out.put(f"{PAGE}/{name}", web_file(name).encode())
    out.put(f"{PAGE}/index.html", web_file("study.html").encode())
    return list(sheets)


def read_study(store: ReadableStore) -> tuple[str, list[Task]]:
    """The id and tasks of the study in a folder.

    Raises:
        UserError: when the folder holds no study.
    """
    try:
        return json.loads(store.get("study.json"))["study"], read_assignment(store.get("assignment.csv").decode())
    except KeyError as error:
        raise UserError(f"{store.root} holds no {error.args[0]}; make a study with im3d study make") from error


def keep_answers(store: Store, annotator: str, data: bytes) -> bool:
    """Keep an annotator's answers, wholly or not at all; the same again changes nothing, others give False."""
    key = f"answers/{annotator}.csv"
    return store.create(key, data) or store.get(key) == data


def read_answers(places: Sequence[str], storage: StorageConfig) -> dict[str, str]:
    """The text of answer files, and of every .csv in folders of them; bytes that are no UTF-8 become question marks.

    Raises:
        UserError: for a place that is not there, or none at all.
    """
    texts: dict[str, str] = {}
    for place in places:
        folder, _, name = place.rpartition("/")
        if place.endswith(".csv"):
            found = {name: open_read_only(folder or ".", storage)}
        else:
            store = open_read_only(place, storage)
            found = {key: store for key in _names(place, storage) if key.endswith(".csv")}
        for key, store in found.items():
            try:
                texts[f"{place}/{key}" if key != name else place] = store.get(key).decode(errors="replace")
            except KeyError as error:
                raise UserError(f"{place}: no such file") from error
    if not texts:
        raise UserError(f"no answers (.csv) in {', '.join(places)}")
    return texts


def _names(folder: str, storage: StorageConfig) -> list[str]:
    try:
        return store_files(folder, storage)
    except ValueError as error:
        raise UserError(
            f"{folder} is no folder: no answers yet; collect them with im3d study serve, or name files with --answers"
        ) from error
