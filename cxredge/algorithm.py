"""The model that segmented, as results name it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cxredge.contract import Contract

LONGEST_LABEL = 64
"""Characters of a value of DICOM's VR LO (PS3.5, 6.2)."""


@dataclass(frozen=True)
class Algorithm:
    """A model.

    Attributes:
        name: of the model.
        sha256: of the model's file, hexadecimal.
        precision: ``fp32``, ``fp16`` or ``int8``.
        code: AdaIN code, ``a_seg`` or ``a_self``.
    """

    name: str
    sha256: str
    precision: str
    code: str

    @classmethod
    def of(cls, contract: Contract, sha256: str) -> Algorithm:
        """The algorithm of a model with a contract."""
        return cls(contract.name, sha256, contract.precision, contract.code)

    @property
    def label(self) -> str:
        """The name as DICOM can write it: 64 printable ASCII characters without a backslash."""
        return re.sub(r"[^ -~]|\\", "_", self.name)[:LONGEST_LABEL].strip() or "unnamed"
