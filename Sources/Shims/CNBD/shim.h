// libnbd, of package libnbd-dev.
#ifndef C_NBD_SHIM_H
#define C_NBD_SHIM_H

#if __has_include(<libnbd.h>)
#include <libnbd.h>
#endif

#endif
