// The control ring of the installed <xen/io/netif.h> as a C compiler has it, for tests that hold ours to the same.
//
// This header needs nothing of Xen, so that the package builds without libxen-dev: net_oracle_available() says whether
// these functions give anything but zero.
#ifndef C_CONTROL_ORACLE_H
#define C_CONTROL_ORACLE_H

#include <stdint.h>

/// The header's own Toeplitz hash.
uint32_t control_oracle_toeplitz(const uint8_t *key, uint32_t key_length, const uint8_t *bytes, uint32_t length);

#endif
