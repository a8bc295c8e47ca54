"""Repositories of Hugging Face: files of one revision, from the network or from the library's cache.

`huggingface_hub` reads environment variables: HF_HOME (where the cache is), HF_HUB_OFFLINE, HF_TOKEN and
HF_ENDPOINT (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables).
"""

import os
import re
from pathlib import Path

from huggingface_hub import get_token, hf_hub_download, is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from zoolib.config.sources import HUB
from zoolib.job.logs import UserError, log, progress
from zoolib.job.words import in_bytes

PICKLE = "pytorch_model.bin"


class Repository:
    """A repository at one revision; all files come from the commit that the first file came from.

    Args:
        source: `hf://organisation/name` or `hf://organisation/name@revision`.

    Attributes:
        commit: 40 hexadecimal digits; None before a file is fetched.
    """

    def __init__(self, source):
        found = HUB.fullmatch(source)
        self.source, self.name, self.revision = source, found["repository"], found["revision"]
        self.commit = None

    def fetch(self, file):
        """Download a file, or find it in the cache.

        Args:
            file: its name, e.g. `config.json`.

        Returns:
            Its path in the cache.

        Raises:
            UserError: no such repository, revision or file, no network, a missing or invalid token.
        """
        try:
            about = hf_hub_download(self.name, file, revision=self.commit or self.revision, dry_run=True)
            size = f"{file}, {in_bytes(about.file_size)}" if about.file_size else file
            log.info("%s: %s%s", self.source, size, ", from the cache" if about.is_cached else "")
            path = Path(
                hf_hub_download(self.name, file, revision=self.commit or self.revision, tqdm_class=_meter)
            )
        except RemoteEntryNotFoundError:
            raise UserError(self._without(file)) from None
        except (OSError, HTTPError) as error:
            # An address may contain a user name and a password.
            why = re.sub(r"//[^/@\s]*@", "//", self._why(error))
            raise UserError(f"{self.source}: {why}") from None
        if not self.commit:
            self.commit = path.parent.name
            log.info("%s: commit %s", self.source, self.commit)
        return path

    def has(self, file):
        """Whether the repository has a file.

        Args:
            file: its name.

        Returns:
            bool; False too if the server cannot be reached.
        """
        try:
            hf_hub_download(self.name, file, revision=self.commit or self.revision, dry_run=True)
        except (OSError, HTTPError):
            return False
        return True

    def _without(self, file):
        if file.endswith(".safetensors") and self.has(PICKLE):
            return (
                f"{self.source}: has its weights in a pickle ({PICKLE}), not in {file}, and opening it can"
                f" run any program; try hf://{self.name}@refs/pr/1, where a conversion is often offered, or"
                " convert it yourself (docs/pretrained.md)."
            )
        return (
            f"{self.source}: has no {file}, expected an encoder that timm has saved (config.json,"
            " model.safetensors); choose another repository or revision."
        )

    def _why(self, error):
        at = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        token = "use a token that may read it" if get_token() else "set HF_TOKEN"
        if isinstance(error, GatedRepoError):
            return f"its owner must grant access; request it at {at}/{self.name}, and {token}."
        if isinstance(error, RepositoryNotFoundError):
            return f"{at} has no such repository, or it is private; fix the name, or, if private, {token}."
        if isinstance(error, RevisionNotFoundError):
            return f"has no revision '{self.revision}', expected a branch, a tag or a commit; fix the name."
        if isinstance(error, LocalEntryNotFoundError):
            if is_offline_mode():
                return "is not in the cache, and HF_HUB_OFFLINE is set; unset it, or run once with a network."
            why = " ".join(str(error.__cause__).split())[:100]
            return f"{at} cannot be reached ({why}), and the cache has no copy; run with a network."
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
            return f"{at} refuses the token; fix or unset HF_TOKEN."
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        return f"the download from {at} failed ({reason}); run the same command again."


def _meter(desc, total=None, **_):
    """The library's progress meter, as lines of the log."""
    meter = progress(None, f"downloading {desc}", total, "B")
    # The library's Xet downloads show two meters, and tqdm would move the cursor for the second.
    meter.pos = 0
    return meter
