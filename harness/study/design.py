"""What a study declares: its design; read by :mod:`harness.study.loading`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.analysis.pairs import declared_pairs
from harness.data.config import DataConfig
from harness.errors import InputError, nearest, shortened
from harness.items.config import ItemsConfig
from harness.metrics import check_metric, find, lower_is_better
from harness.probes.base import find_probe
from harness.probes.shipped import NoiseOptions
from harness.settings import Settings, parse
from harness.trackers import find_tracker
from harness.training_config import Budget

__all__ = ["NAME", "Confirm", "Space", "Study", "Variant", "checked_names"]

NAME = r"^[a-z0-9][a-z0-9_.-]{0,99}$"
MOST_SEEDS, LARGEST_SEED = 10_000, 2**32 - 1
"""The second is what the generators of all libraries take."""
LONGEST_NAME = 100
OWN_TABLES = (
    *("differences", "datasets", "references", "relative", "per-action", "candidates", "history-length", "targets"),
    *("published", "tuning", "cost", "variance"),
    *("noise", "noise-attention", "noise-ranking", "decoding", "claims"),
)
"""Names of tables that the analysis writes by itself."""


class Variant(Settings):
    """One arm of the comparison: a model and what is set differently."""

    model: str
    label: str | None = Field(None, max_length=200)
    """How tables and figures call it; the variant's key where absent."""
    set: dict[str, Any] = Field(default_factory=dict)


class Space(Settings):
    """Where a search looks for one setting: ``{low, high, log}``, whole numbers if both ends are, or ``{choices}``."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Equal factors are equally likely, not equal steps."""
    choices: tuple[bool | int | float | str | None, ...] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Space:
        ends = (self.low, self.high)
        if (self.choices is None) == (ends == (None, None)) or (self.choices is None and None in ends):
            raise ValueError("a search space is either {low, high} or {choices}")
        if self.choices is not None and (self.log or len(set(self.choices)) != len(self.choices) or not self.choices):
            raise ValueError("choices are a list of different values, and have no log")
        if self.choices is None:
            low, high = self.range
            if low >= high or (self.log and low <= 0):
                raise ValueError("low must be below high, and above 0 where log is true")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """Its ends, where it is not a list of choices."""
        assert self.low is not None, "choices have no ends"
        assert self.high is not None
        return self.low, self.high

    def described(self) -> dict[str, Any]:
        """As a ledger of tuning holds it."""
        if self.choices is not None:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log}

    def ends(self) -> tuple[Any, ...]:
        """The values that must be possible if all are to be."""
        return self.choices if self.choices is not None else (self.low, self.high)

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> Any:
        """The value that lies a share, from 0 to below 1, of the way through the space."""
        if self.choices is not None:
            return self.choices[int(share * len(self.choices))]
        least, most = self.range
        low, high = (least - 0.5, most + 0.5) if self.whole else (least, most)
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        return min(max(round(value) if self.whole else value, least), most)

    def holds(self, value: Any) -> bool:
        """Whether a search could draw ``value``."""
        if self.choices is not None:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        low, high = self.range
        return low <= value <= high and (not self.whole or float(value).is_integer())


class Confirm(Settings):
    """The best trials of a search, trained again with new seeds before one is chosen: the best of many single runs is
    the luckiest as much as the best, and its value optimistic."""

    top: int = Field(3, ge=1)
    """So many trials, by their validation value in the search."""
    seeds: int = Field(3, ge=1)
    """With so many new seeds each; the mean over these and the search's own run decides."""


class Study(Settings):
    """The design: models x variants x datasets x seeds, and how the result is judged."""

    study: str = Field(pattern=NAME)
    title: str = ""
    question: str = ""
    task: Literal["retrieval", "action"] = "retrieval"
    datasets: dict[str, dict[str, Any]]
    """Data set -> what is set differently there; a plain list of names will do."""
    seeds: tuple[int, ...]
    """The seeds, the same for every variant, so that differences are paired; a number n stands for 0..n-1."""
    codes: int = Field(1, ge=1)
    """How often item codes are drawn: each seed trains with each draw, so that verdicts hold for new codes too. The
    draw gives the seed of whatever is random in making codes; models without codes, or with a file's, have one."""
    control: str | None = None
    """The variant that the others are compared with."""
    contrasts: Literal["all-pairs"] | tuple[tuple[str, str], ...] = ()
    """Pairs [arm, than] that are compared, beside those with the control or instead of them; "all-pairs": every two
    variants but the references. With the data sets they are one family, which tables and claims share."""
    references: tuple[str, ...] = ()
    """Variants that stand in the tables for orientation (a popularity ranking, say): the control is not compared with
    them, and of ``common`` and a data set's settings only those of the data are for them."""
    data: DataConfig = DataConfig()
    items: ItemsConfig = ItemsConfig()
    common: dict[str, Any] = Field(default_factory=dict)
    """Set on every variant, before its own ``set``."""
    variants: dict[str, Variant] = Field(min_length=1)
    budget: Budget = Budget()
    candidates: Literal["all", "unseen"] = "unseen"
    """Retrieval's protocol that tables show first: may items of the history be recommended again (all) or not?"""
    metrics: tuple[str, ...] = Field(min_length=1)
    primary: str
    """The metric that picks the epoch on validation, and that the tests are about."""
    attention: bool = False
    """Measure attention on the test histories, for the models that show it."""
    noise: NoiseOptions | None = None
    """Put random items into the test histories and measure what that does (retrieval only)."""
    decoding_audit: bool = False
    """Compare free, constrained and exact decoding on test histories, for the models that emit codes."""
    probes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What else is measured on the trained models: a registered probe -> its options. ``attention``, ``noise`` and
    ``decoding`` may stand here instead of under the three keys above."""
    trackers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Where the training of cells is followed: a registered tracker -> its options. None unless it is named here."""
    keep_last_state: bool = False
    """Keep each cell's last weights and optimiser state, about four times its weights, so that ``harness run
    --continue`` can go on from there with a larger budget."""
    equivalence_margin: float | str | None = None
    """A difference in the primary metric within +-margin counts as practically equal (TOST): in the metric's own unit,
    or as in "5 %" in percent of the mean of what a variant is compared with."""
    test: Literal["t", "exact", "wilcoxon", "pooled"] = "t"
    """What gives a comparison's verdict: the paired t-test over seeds, the exact sign-flip test, Wilcoxon's, or the
    t-test with one variance of all arms (block ANOVA), where a check finds these alike; else it is the paired one."""
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    """Within a family of comparisons: Holm's, or, for exploration, Benjamini-Hochberg's."""
    looks: int = Field(1, ge=1)
    """How often the verdicts may be looked at while seeds are added; every p is multiplied by it (Bonferroni)."""
    tables: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict)
    """Table of results -> its ``rows`` (variants), ``columns`` (metrics) and ``datasets``, each by default all of
    them; one table "main" of everything where absent."""
    search: dict[str, dict[str, Space]] = Field(default_factory=dict)
    """Variant -> setting -> where ``harness tune`` looks for it, and where the variant's own setting lies too."""
    prune_after: float = Field(0.5, ge=0, le=1)
    """The share of its epochs that a trial of ``harness tune`` trains before it may be pruned, so that slow starters
    are not cut off; 1: none is pruned."""
    confirm: Confirm | None = Confirm()
    """How ``harness tune`` chooses among the best trials of a search, the same for every variant; null: the best one
    is taken by its single run."""
    tuned: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """Data set -> variant -> what ``harness tune`` found there, set after all else."""

    @field_validator("datasets", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, (list, tuple)):
            if not all(isinstance(name, str) for name in value):
                raise ValueError("a list of data sets holds their names alone, as in [ml-100k, amazon-beauty]")
            value = {name: {} for name in value}
        if not value:
            raise ValueError("name at least one data set")
        if not isinstance(value, dict):
            raise ValueError("data sets are a list of names, or a mapping from a name to settings")
        # A path has one spelling: in/x, not in/x/ or ./in/x.
        return {str(Path(name)) if "/" in str(name) else name: settings or {} for name, settings in value.items()}

    @field_validator("tables", mode="before")
    @classmethod
    def _whole_tables(cls, value: Any) -> Any:
        return {name: choice or {} for name, choice in value.items()} if isinstance(value, dict) else value or {}

    @field_validator("equivalence_margin", mode="before")
    @classmethod
    def _margin(cls, value: Any) -> Any:
        share = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", value) if isinstance(value, str) else None
        number = float(share[1]) if share else value
        if value is not None and (not isinstance(number, (int, float)) or isinstance(number, bool) or not number > 0):
            raise ValueError("an equivalence margin is a number above 0, or a percentage as in '5 %'")
        return value

    @field_validator("contrasts", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        pairs = isinstance(value, (list, tuple)) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in value)
        if value and value != "all-pairs" and not pairs:
            raise ValueError("contrasts are pairs [arm, than], as in [[fair, tiger]], or all-pairs")
        return value or ()

    @field_validator("trackers", mode="before")
    @classmethod
    def _trackers(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, (list, tuple)):
            value = {str(name): {} for name in value}
        return {name: options or {} for name, options in value.items()} if isinstance(value, dict) else value or {}

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= MOST_SEEDS:
                raise ValueError(f"a study needs at least one seed, and at most {MOST_SEEDS}")
            return tuple(range(value))
        listed = isinstance(value, (list, tuple)) and all(
            type(seed) is int and 0 <= seed <= LARGEST_SEED for seed in value
        )
        if not value or not listed or len(set(value)) != len(value) or len(value) > MOST_SEEDS:
            raise ValueError(
                f"seeds are a number of them, or a list of different whole numbers from 0 to {LARGEST_SEED}"
            )
        return tuple(value)

    @model_validator(mode="before")
    @classmethod
    def _shipped_probes(cls, raw: Any) -> Any:
        """Takes the probes that have keys of their own out of ``probes``, so that a study is one however it is put."""
        if not isinstance(raw, dict) or not isinstance(raw.get("probes"), dict):
            return raw
        raw, probes = dict(raw), {name: options or {} for name, options in raw["probes"].items()}
        for name, key in (("attention", "attention"), ("noise", "noise"), ("decoding", "decoding_audit")):
            if name in probes:
                options = probes.pop(name)
                if name != "noise" and options:
                    raise ValueError(f"probes: '{name}' has no options, but '{next(iter(options))}' is set")
                raw[key] = options if name == "noise" else True
        return raw | {"probes": probes}

    @field_validator("variants")
    @classmethod
    def _variant_names(cls, value: dict[str, Variant]) -> dict[str, Variant]:
        return checked_names(value)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.control is not None and self.control not in self.variants:
            raise ValueError(f"control '{self.control}' is not a variant; {nearest(self.control, self.variants)}")
        _check_names("references", "variant", self.references, self.variants)
        if self.control in self.references:
            raise ValueError(f"control '{self.control}' is among 'references', which nothing is tested against")
        self._check_contrasts()
        if self.codes > 1 and self.test != "t":
            raise ValueError(f"codes: {self.codes} needs test: t, as '{self.test}' over seeds knows nothing of draws")
        for key in ("noise", "decoding_audit"):
            if self.task != "retrieval" and getattr(self, key):
                raise ValueError(f"'{key}' is about ranked lists; leave it out of a study of task '{self.task}'")
        if self.task != "retrieval" and self.data.targets != "last":
            raise ValueError("'data.targets' is for retrieval; action prediction predicts every event: leave it out")
        _ = self.tracked  # refuses what it does not know
        for name in self.measured:
            if self.task not in find_probe(name).tasks and name in self.probes:
                raise ValueError(f"probe '{name}' does not measure models of task '{self.task}'; leave it out")
        known = _check_metrics(self.task, (*self.metrics, self.primary))
        object.__setattr__(self, "metrics", known[:-1])
        object.__setattr__(self, "primary", known[-1])
        if self.primary not in self.metrics:
            raise ValueError(f"primary '{self.primary}' is not among the metrics {', '.join(self.metrics)}")
        if not find(self.primary).in_validation:
            raise ValueError(
                f"primary '{self.primary}' can't choose the epoch: it is computed from what a cell keeps of the test "
                "part; choose a metric of ranks, as in 'ndcg@10'"
            )
        object.__setattr__(self, "tables", {name: self._table(name, choice) for name, choice in self.tables.items()})
        _check_names("search", "variant", self.search, self.variants)
        _check_names("tuned", "data set", self.tuned, self.datasets)
        for dataset, settings in self.tuned.items():
            _check_names(f"tuned, '{dataset}'", "variant", settings, self.variants)
        return self

    @property
    def measured(self) -> dict[str, Settings]:
        """What is measured on the trained models: probe -> its options."""
        found: dict[str, Settings] = {"attention": Settings()} if self.attention else {}
        found |= {"noise": self.noise} if self.noise else {}
        found |= {"decoding": Settings()} if self.decoding_audit else {}
        for name, options in self.probes.items():
            try:
                found[name] = parse(find_probe(name).Options, options, f"probes.{name}")
            except InputError as error:
                raise ValueError(str(error)) from None
        return found

    @property
    def tracked(self) -> dict[str, Settings]:
        """Where the training of cells is followed: tracker -> its options."""
        found = {}
        for name, options in self.trackers.items():
            try:
                found[name] = parse(find_tracker(name).Options, options, f"trackers.{name}")
            except InputError as error:
                raise ValueError(str(error)) from None
        return found

    def _check_contrasts(self) -> None:
        if isinstance(self.contrasts, str):
            return
        _check_names("contrasts", "variant", (name for pair in self.contrasts for name in pair), self.variants)
        if len({frozenset(pair) for pair in self.contrasts}) < len(self.contrasts):
            raise ValueError("contrasts: a pair stands there twice, perhaps the other way round; leave one out")
        for arm, than in self.contrasts:
            if arm == than:
                raise ValueError(f"contrasts: '{arm}' is compared with itself; name two variants, as in [fair, tiger]")

    def _table(self, name: str, choice: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        where = f"table '{name}'"
        if not re.fullmatch(NAME, name) or name in OWN_TABLES or name.startswith("per-action-"):
            taken = f"{', '.join(OWN_TABLES)} or per-action-..."
            raise ValueError(f"{where}: choose another name (small letters, digits, '-'; not {taken})")
        _check_names(where, "key", choice, ("rows", "columns", "datasets"))
        _check_names(where, "variant", choice.get("rows", ()), self.variants)
        _check_names(where, "data set", choice.get("datasets", ()), self.datasets)
        if "columns" not in choice:
            return choice
        try:
            return {**choice, "columns": _check_metrics(self.task, choice["columns"])}
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    @property
    def higher_is_better(self) -> bool:
        """Of the primary metric."""
        return not lower_is_better(self.primary)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs (arm, than) that are compared on each data set."""
        return declared_pairs(self.variants, self.control, self.references, self.contrasts)

    def label(self, variant: str) -> str:
        return " ".join((self.variants[variant].label or variant).split())


def checked_names(variants: dict[str, Variant]) -> dict[str, Variant]:
    """Raises ValueError where a key of ``variants`` is not a variant's name."""
    for name in variants:
        if not name or "/" in name or name != name.strip():
            raise ValueError(f"'{name}' can't name a variant; choose a name without '/' and without spaces around it")
        if len(name) > LONGEST_NAME or len(name.splitlines()) > 1:
            raise ValueError(
                f"'{shortened(name, 40)}' can't name a variant; choose one line of at most {LONGEST_NAME} letters"
            )
    return variants


def _check_names(where: str, kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: unknown {kind} '{name}'; {nearest(name, known)}")


def _check_metrics(task: str, names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(check_metric(name, task) for name in names)
    except InputError as error:
        raise ValueError(str(error)) from None
