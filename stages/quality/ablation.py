"""Arms of an ablation against the default: paired differences, and whether they exceed noise.

Noise is how far other seeds shift the default. Scenes to choose by and scenes to report are kept
apart: an arm chosen on the reported scenes has no unbiased measure left.
"""

from collections.abc import Mapping, Sequence

from stages.quality.comparison import Evaluation, Evaluations
from stages.quality.config import CompareConfig
from stages.quality.keys import FORMATS, MEASURES, titled
from stages.quality.paired_differences import MEAN, DeltaRow, delta_table
from stages.quality.statistics import column_means
from stages.quality.table import render_table
from stages.run.errors import UserError, UserErrors

# Arms differ less than methods.
_FORMATS = FORMATS | {"psnr": ".3f"}

Arms = Mapping[str, Evaluations]  # by label; each holds the method that is compared


def arm_deltas(
    default: Evaluations, arms: Arms, scenes: Sequence[str], method: str, config: CompareConfig
) -> tuple[list[DeltaRow], dict[str, str]]:
    """Rows of `delta_table` for each arm against the default, and reasons for those without.

    An arm that was measured differently, such as at another resolution, is not compared.

    Args:
        default: Evaluations of the default params.
        arms: Evaluations of arms and repeats, by label.
        scenes: To compare on.
        method: The method that is compared.
        config: Confidence and bootstrap.
    """
    rows, reasons = [], {}
    for label, evaluations in arms.items():
        sides = {
            scene: (default.of(scene, method), evaluations.of(scene, method)) for scene in scenes
        }
        try:
            pair = Evaluations(
                {
                    (scene, name): Evaluation(scene, name, side.means, side.views)
                    for scene, both in sides.items()
                    for name, side in zip(("default", "arm"), both, strict=True)
                }
            )
        except UserError as error:
            first = error.errors[0] if isinstance(error, UserErrors) else error
            reasons[label] = first.got
            continue
        for row in delta_table(pair, scenes, config, [("arm", "default")]):
            rows.append(row | {"comparison": label})
    return rows, reasons


def ablation(
    default: Evaluations,
    arms: Arms,
    varied: Sequence[str],
    repeats: Sequence[str],
    roles: Mapping[str, Sequence[str]],
    method: str,
    config: CompareConfig,
) -> str:
    """The tables of an ablation as text, one per role of scenes.

    Args:
        default: Evaluations of the default params.
        arms: Evaluations of arms and repeats, by label.
        varied: Labels of the arms.
        repeats: Labels of the repeats, which have other seeds.
        roles: Scenes by what they are for, such as `to choose by`.
        method: The method that is compared.
        config: Confidence and bootstrap.
    """
    blocks = []
    for purpose, listed in roles.items():
        scenes = [scene for scene in listed if scene in default.scenes]
        if scenes:
            rows, reasons = arm_deltas(default, arms, scenes, method, config)
            of_default = [default.of(scene, method).means for scene in scenes]
            means = column_means(of_default, MEASURES)
            table = ablation_table(rows, means, varied, repeats, reasons, len(scenes))
            blocks.append(f"{method} on scenes {purpose}: {', '.join(scenes)}\n{table}")
    interval = f"{config.confidence:.0%} intervals of Student's t over scenes"
    blocks.append(f"* more than the repeats with other seeds; in brackets {interval}")
    return "\n\n".join(blocks)


def largest_repeat_shift(rows: Sequence[DeltaRow], repeats: Sequence[str]) -> dict[str, float]:
    """The largest shift of each mean in a repeat, by metric; empty without repeats."""
    floor: dict[str, float] = {}
    for row in rows:
        if row["scene"] == MEAN and row["comparison"] in repeats:
            name = row["metric"]
            floor[name] = max(floor.get(name, 0.0), abs(row["difference"]))
    return floor


def ablation_table(
    rows: Sequence[DeltaRow],
    default: Mapping[str, float | None],
    arms: Sequence[str],
    repeats: Sequence[str],
    reasons: Mapping[str, str],
    scenes: int,
) -> str:
    """The default's means, every arm's difference from them, and the largest of the repeats.

    Student's interval over scenes is in brackets; a star marks differences beyond the repeats'.

    Args:
        rows: Rows of `arm_deltas`.
        default: Means of the default, by metric.
        arms: Labels of the arms.
        repeats: Labels of the repeats.
        reasons: Why arms are not compared, by label.
        scenes: Number of scenes.
    """
    floor = largest_repeat_shift(rows, repeats)
    means = {(row["comparison"], row["metric"]): row for row in rows if row["scene"] == MEAN}
    table = [["", *map(titled, MEASURES)]]
    table.append(["default", *(_text(default[name], _FORMATS[name]) for name in MEASURES)])
    for label in (*arms, *repeats):
        if label in reasons:
            table.append([label, *("-" for _ in MEASURES)])
            continue
        cells = [_cell(means.get((label, name)), scenes, floor, label in arms) for name in MEASURES]
        table.append([label, *cells])
    if floor:
        cells = [_text(floor.get(name), _FORMATS[name]) for name in MEASURES]
        table.append(["largest of the repeats", *cells])
    notes = [f"{label}: not compared: {reason}" for label, reason in reasons.items()]
    return "\n".join([render_table(table), *notes])


def _cell(row: DeltaRow | None, scenes: int, floor: Mapping[str, float], starred: bool) -> str:
    """Such as `+0.310* [-0.100, 0.720] 4/4`."""
    if row is None:
        return "-"
    form, name = _FORMATS[row["metric"]], row["metric"]
    star = "*" if starred and name in floor and abs(row["difference"]) > floor[name] else " "
    ends = "" if row["low"] is None else f" [{row['low']:+{form}}, {row['high']:+{form}}]"
    return f"{row['difference']:+{form}}{star}{ends} {row['won']}/{scenes}"


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
