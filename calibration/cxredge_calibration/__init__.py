"""INT8 calibration on chest radiographs, and the gate that an INT8 model must pass."""
