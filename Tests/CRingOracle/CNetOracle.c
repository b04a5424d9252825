#include "CNetOracle.h"

#include <stddef.h>
#include <string.h>

#if __has_include(<xenctrl.h>) && __has_include(<xen/io/netif.h>)
#include <xenctrl.h>

#include <xen/io/netif.h>

bool net_oracle_available(void) { return true; }

static uint64_t bytes(struct netif_extra_info info) {
  uint64_t bytes;
  _Static_assert(sizeof bytes == sizeof info, "an extra info has eight bytes");
  memcpy(&bytes, &info, sizeof bytes);
  return bytes;
}

uint64_t net_oracle_gso(uint16_t size, uint8_t type, bool more) {
  return bytes((struct netif_extra_info){
    .type = XEN_NETIF_EXTRA_TYPE_GSO, .flags = more ? XEN_NETIF_EXTRA_FLAG_MORE : 0,
    .u.gso = {.size = size, .type = type}});
}

uint64_t net_oracle_multicast(
  bool add, uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint8_t e, uint8_t f) {
  return bytes((struct netif_extra_info){
    .type = add ? XEN_NETIF_EXTRA_TYPE_MCAST_ADD : XEN_NETIF_EXTRA_TYPE_MCAST_DEL,
    .u.mcast = {.addr = {a, b, c, d, e, f}}});
}

uint64_t net_oracle_hash(uint8_t type, uint8_t algorithm, uint32_t value) {
  struct netif_extra_info info = {
    .type = XEN_NETIF_EXTRA_TYPE_HASH, .u.hash = {.type = type, .algorithm = algorithm}};
  memcpy(info.u.hash.value, &value, sizeof value);
  return bytes(info);
}
#else
bool net_oracle_available(void) { return false; }
uint64_t net_oracle_gso(uint16_t size, uint8_t type, bool more) { return 0; }
uint64_t net_oracle_multicast(
  bool add, uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint8_t e, uint8_t f) { return 0; }
uint64_t net_oracle_hash(uint8_t type, uint8_t algorithm, uint32_t value) { return 0; }
#endif
