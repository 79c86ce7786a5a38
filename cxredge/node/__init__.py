"""A DICOM node: radiographs arrive by C-STORE, their lungs go back by C-STORE; see docs/dicom-node.md.

:mod:`~cxredge.node.acceptor` takes what peers send, :mod:`~cxredge.node.queue` remembers it,
:mod:`~cxredge.node.worker` segments, :mod:`~cxredge.node.sender` sends, :mod:`~cxredge.node.web` answers HTTP,
:mod:`~cxredge.node.service` puts them together. A node owns its process.
"""
