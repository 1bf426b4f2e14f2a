"""Print the branch that the book is published to, as `_config.yml` has it.

Given the repository in which it runs (`owner/name`), stop if the configuration names another one:
the published notebooks and their Colab buttons would point there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

ROOT = Path(__file__).resolve().parents[2]


def publish_branch(config: dict[str, Any], repository: str) -> str:
    named = urlparse(config["repository"]["url"]).path.strip("/").removesuffix(".git")
    if named.lower() != repository.lower():
        raise ValueError(f"_config.yml names the repository {named}, but this is {repository}")
    return config["sphinx"]["config"]["bookext_publish_branch"]


if __name__ == "__main__":
    try:
        print(publish_branch(yaml.safe_load((ROOT / "_config.yml").read_text("utf8")), sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
