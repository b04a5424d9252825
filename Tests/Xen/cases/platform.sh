# What every platform does, on this one: libxenstore, libxengnttab and libxenevtchn under a real Xen.
platform-conformance
