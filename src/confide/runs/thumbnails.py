"""Images of the records of patients at risk, from the data that an audit was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confide._tables import plain
from confide.audits.result import AuditResult
from confide.config import load, parse
from confide.datasets import Data
from confide.errors import ArgumentError, ConfigError, MismatchError
from confide.reports.patients_view import at_risk, records_of
from confide.reports.thumbnails import MOST_IMAGES, MOST_PATIENTS, MOST_RECORDS, data_uri


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """The images of an audit, known to be those that it was made of."""

    data: Data

    @classmethod
    def of(cls, out: Path, manifest: dict[str, Any], config: Path | None = None) -> Pictures:
        """Load the data of an audit.

        Parameters
        ----------
        out : the audit folder, for messages
        manifest : of the audit
        config : the configuration of the audit, where its manifest does not say where the data
            lie (it never does of files)

        Raises
        ------
        ArgumentError : the audit was made of predictions, or of data that are no images
        ConfigError : the manifest does not say where the data lie, or config is no configuration
        MismatchError : these are not the data that the audit was made of
        As the data set's `load`
        """
        block = (manifest.get("config") or {}).get("data")
        if not isinstance(block, dict):
            raise ArgumentError(
                f"{out} was not trained from a configuration, so there are no images to show; "
                "leave --show-images out."
            )
        if config is None:
            try:
                settings, folder = parse({"data": block}, "the manifest"), Path()
            except ConfigError as error:
                raise ConfigError(
                    f"The manifest of {out} does not say where the data {block.get('name')!r} "
                    "lie; add --config CONFIG, the configuration that the audit was run with."
                ) from error
        else:
            settings, folder = load(config)
        data = settings.data.load(folder)
        if data.inputs.ndim != 4:
            raise ArgumentError(
                f"The data {settings.data.name!r} are no images; leave --show-images out."
            )
        if data.fingerprint() != manifest.get("fingerprint"):
            raise MismatchError(
                f"The data of {config or 'the manifest'} are not those that {out} was made of "
                "(their fingerprints differ), so their images might be of other patients; give "
                "the data as they were."
            )
        return cls(data=data)

    def thumbnails(self, result: AuditResult) -> dict[int, str]:
        """Row of the table of records -> data: URI, of the first records of the first patients."""
        listed = at_risk(result, MOST_PATIENTS)["patient"]
        owned = records_of(result, listed)
        rows = [row for one in listed for row in owned.get(one, [])[:MOST_RECORDS]][:MOST_IMAGES]
        ids = result.records["record"]
        place = {plain(record): i for i, record in enumerate(self.data.cohort.record)}
        return {row: data_uri(self.data.inputs[place[plain(ids.iloc[row])]]) for row in rows}
