#include "CControlOracle.h"

#if __has_include(<xenctrl.h>) && __has_include(<xen/io/netif.h>)
#include <stddef.h>
#include <string.h>
#include <xenctrl.h>
#define XEN_NETIF_DEFINE_TOEPLITZ
#include <xen/io/netif.h>

uint32_t control_oracle_toeplitz(const uint8_t *key, uint32_t key_length, const uint8_t *bytes, uint32_t length)
{
  return xen_netif_toeplitz_hash(key, key_length, bytes, length);
}
#else
uint32_t control_oracle_toeplitz(const uint8_t *key, uint32_t key_length, const uint8_t *bytes, uint32_t length)
{
  return 0;
}
#endif
