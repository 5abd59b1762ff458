"""Gather what an evaluation judges and by whom: `Judging` by judges, features and truth, `Assets` of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.config import JudgeConfig
from eval.judges.features import FeatureModel
from eval.judges.load import load_judges
from eval.protocols import Protocol
from factory.evaluation.distances import Reference
from factory.evaluation.line import Measures, assets_of_run
from factory.ledger.reader import LedgerReader
from factory.line.stage import Row
from factory.prompts.foreign_folder import assets_of_folder
from factory.storage.interface import StorageConfig
from factory.storage.read_only import open_read_only
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Judging:
    """What is measured beside CLIP, and by whom."""

    measures: Measures
    judges: list[Any]
    """For their names; vision-language models without weights."""
    models: list[Any]
    """Of features."""
    reference: Reference | None
    sets: list[Any] = field(default_factory=list)
    """Features of the reference set, by model."""

    @staticmethod
    def load(
        judges: Sequence[str], features: Sequence[str], reference: str | None, truth: str | None, consistency: bool,
        storage: StorageConfig,
    ) -> Judging:  # fmt: skip
        """As the flags of `im3d evaluate` name them.

        Raises:
            ValueError: for judges, features or a reference set that cannot be had.
        """
        if bool(features) != bool(reference):
            raise UserError("--features and --reference go together: which features, and of which pictures")
        configs = tuple(JudgeConfig.parse(text) for text in judges)
        named: list[Any] = load_judges(configs, "cpu", to_name=True)
        models = [FeatureModel.load(folder, "cpu") for folder in features]
        return Judging(
            measures=Measures(
                truth=truth,
                consistency=consistency,
                judges=configs,
                judged=tuple(column for judge in named for column in judge.columns()),
                features=tuple(features),
            ),
            judges=named + models,
            models=models,
            reference=Reference.open(reference, storage) if reference else None,
        )

    def reference_statement(self) -> dict[str, Any]:
        """What the protocol says of the reference set."""
        return {"reference": self.reference.statement()} if self.reference else {}

    def embed_reference(self, protocol: Protocol) -> None:
        """The features of the reference set; ValueError for pictures of another size."""
        if self.reference:
            self.sets = [self.reference.features(model, protocol) for model in self.models]


@dataclass(kw_only=True, slots=True)
class Assets:
    """What is judged, as it was when it was opened: a run may go on meanwhile."""

    run: str
    """Folder of a run of ours, or of anyone's files with a table of prompts."""
    prompts: str | None
    image_root: str | None
    image_hosts: tuple[str, ...]
    storage: StorageConfig
    reader: LedgerReader | None
    """Of a run of ours; None for a folder with a table of prompts."""

    @staticmethod
    def open(
        run: str, prompts: str | None, image_root: str | None, storage: StorageConfig, image_hosts: tuple[str, ...] = ()
    ) -> Assets:
        """The assets of a run, or with a table of prompts those of a folder."""
        reader = None if prompts else LedgerReader(open_read_only(run, storage))
        return Assets(run=run, prompts=prompts, image_root=image_root, image_hosts=image_hosts, storage=storage,
                      reader=reader)  # fmt: skip

    def rows(self) -> Iterator[Row]:
        """The rows to score, the same each time."""
        if self.reader:
            return assets_of_run(self.reader)
        return assets_of_folder(self.run, self.prompts or "", self.image_root, self.storage, self.image_hosts)
