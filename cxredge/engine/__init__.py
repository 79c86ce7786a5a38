"""TensorRT engines: what is installed, building, the sidecar that describes a plan, and the cache that keeps them.

Nothing here touches a TensorRT object before the sidecar, the driver and the device have been found to
fit: with a foreign plan or without a driver TensorRT may end the process instead of raising.
"""
