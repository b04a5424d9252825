// Slots of the installed <xen/io/netif.h> filled in by C, for tests that read them.
//
// This header needs nothing of Xen, so that the package builds without libxen-dev.
#ifndef C_NET_ORACLE_H
#define C_NET_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

/// Whether libxen-dev was there when this was compiled. If not, the other functions give zero.
bool net_oracle_available(void);

/// Each gives the eight bytes of one struct netif_extra_info, the first one lowest on machines that do so.
uint64_t net_oracle_gso(uint16_t size, uint8_t type, bool more);
uint64_t net_oracle_multicast(
  bool add, uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint8_t e, uint8_t f);
uint64_t net_oracle_hash(uint8_t type, uint8_t algorithm, uint32_t value);

#endif
