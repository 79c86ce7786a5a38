"""DICOM: radiographs read from its files, and segmentations and secondary captures written as its objects."""
