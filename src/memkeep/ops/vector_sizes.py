"""Vectors of several sizes beside each other: of several models, told by what a snapshot counted anyway."""

from collections.abc import Iterator

from memkeep.model import Finding, PartImage, Severity


def mixed_sizes(image: PartImage) -> Iterator[Finding]:
    """Yield a finding for each table whose memories have vectors of more than one size."""
    seen = image.baseline.facts.get("vectors")
    for map_ in image.part.maps:
        if not map_.vectors or "text" not in map_.fields or not isinstance(seen, dict):
            continue  # a table that names the model in each row may have many
        said = seen.get(f"{map_.table}.{map_.vectors[0]}")
        sizes = said.get("dims") if isinstance(said, dict) else None
        there = {size: count for size, count in sizes.items() if int(size)} if isinstance(sizes, dict) else {}
        if len(there) > 1:
            shown = ", ".join(f"{count:,} of {size} dimensions" for size, count in sorted(there.items()))
            yield Finding(
                code="mixed_models",
                severity=Severity.WARNING,
                part=image.part.name,
                message=f"vectors of several models in {map_.collection}: {shown}",
                mend="memkeep embed STORE --all   # all of them anew, with one model",
            )
