// The control ring of the installed <xen/io/netif.h> as a C compiler has it, for tests that hold ours to the same.
//
// This header needs nothing of Xen, so that the package builds without libxen-dev: net_oracle_available() says whether
// these functions give anything but zero.
#ifndef C_CONTROL_ORACLE_H
#define C_CONTROL_ORACLE_H

#include <stdint.h>

/// The header's own Toeplitz hash.
uint32_t control_oracle_toeplitz(const uint8_t *key, uint32_t key_length, const uint8_t *bytes, uint32_t length);

/// Each writes the struct's bytes to `slot`, which has 16, and gives how many there are.
uint32_t control_oracle_request(
  uint16_t identifier, uint16_t type, uint32_t a, uint32_t b, uint32_t c, void *slot);
uint32_t control_oracle_response(uint16_t identifier, uint16_t type, uint32_t status, uint32_t data, void *slot);
uint32_t control_oracle_gref(uint32_t reference, uint16_t flags, uint16_t status, void *slot);

/// XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS and so on, in the order of the header; zero beyond the last one.
uint16_t control_oracle_type(uint32_t index);
/// XEN_NETIF_CTRL_STATUS_*, as above.
uint32_t control_oracle_status(uint32_t index);

#endif
