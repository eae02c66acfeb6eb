"""What a user should know of a packed data set, in sentences: images left out, split, duplicates, imbalance."""

from __future__ import annotations

from typing import Any

IMBALANCE = 3.0  # times as many images in one class as in another: worth a word
_NAMED = 5


def remarks(manifest: dict[str, Any]) -> list[str]:
    """One sentence for each thing in the manifest that a result depends on and a number of images does not show."""
    lines = []
    skipped = manifest["skipped"]
    if skipped:
        names = ", ".join(list(skipped)[:_NAMED]) + (" and more" if len(skipped) > _NAMED else "")
        lines.append(f"{len(skipped)} images left out (on_error: skip): {names}; reasons are in its manifest.json")
    if positive := manifest["extra"].get("positive_by_name"):
        lines.append(
            f"the positive class of F1 and AUC is {positive}, for its name comes second; `positive:` in the data block "
            "chooses"
        )
    if sides := manifest["extra"].get("split_folders"):
        lines.append("split by folders: " + ", ".join(f"{name} is {side}" for name, side in sides.items()))
    if passed := manifest["extra"].get("passed_over"):
        names = ", ".join(list(passed)[:_NAMED]) + (" and more" if len(passed) > _NAMED else "")
        lines.append(f"{sum(passed.values())} files of file managers and the like passed over: {names}")
    duplicates = manifest["duplicates"]
    if duplicates["groups"]:
        worst = duplicates["listed"][0]
        lines.append(
            f"{duplicates['images']} images are equal to another one (in {duplicates['groups']} groups): "
            f"{duplicates['across_split']} on both sides of the split, {duplicates['contradictory']} with "
            f"contradictory labels; for example "
            f"{' = '.join(worst['ids'][:4])} ({', '.join(worst['splits'] + worst['classes'])})"
        )
    counts = manifest["counts"]["train"]
    least, most = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    if counts[most] >= IMBALANCE * counts[least]:
        lines.append(
            f"imbalanced: {counts[most] / counts[least]:.1f} train images of class {most} for each of class {least}; "
            f"always saying {most} is right for {100 * manifest['class_shares']['test'][most]:.1f} % of the test images"
        )
    return lines
