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

uint32_t control_oracle_request(uint16_t identifier, uint16_t type, uint32_t a, uint32_t b, uint32_t c, void *slot)
{
  struct xen_netif_ctrl_request request = {.id = identifier, .type = type, .data = {a, b, c}};
  memcpy(slot, &request, sizeof request);
  return sizeof request;
}

uint32_t control_oracle_response(uint16_t identifier, uint16_t type, uint32_t status, uint32_t data, void *slot)
{
  struct xen_netif_ctrl_response response = {.id = identifier, .type = type, .status = status, .data = data};
  memcpy(slot, &response, sizeof response);
  return sizeof response;
}

uint32_t control_oracle_gref(uint32_t reference, uint16_t flags, uint16_t status, void *slot)
{
  struct xen_netif_gref gref = {.ref = reference, .flags = flags, .status = status};
  memcpy(slot, &gref, sizeof gref);
  return sizeof gref;
}

uint16_t control_oracle_type(uint32_t index)
{
  static const uint16_t types[] = {
    XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS,        XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS,
    XEN_NETIF_CTRL_TYPE_SET_HASH_KEY,          XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE,
    XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING,
    XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM,    XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE,
    XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING,      XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING};
  return index < sizeof types / sizeof *types ? types[index] : 0;
}

uint32_t control_oracle_status(uint32_t index)
{
  static const uint32_t statuses[] = {
    XEN_NETIF_CTRL_STATUS_SUCCESS, XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED, XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER,
    XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW};
  return index < sizeof statuses / sizeof *statuses ? statuses[index] : 0;
}
#else
uint32_t control_oracle_toeplitz(const uint8_t *key, uint32_t key_length, const uint8_t *bytes, uint32_t length)
{
  return 0;
}
uint32_t control_oracle_request(uint16_t identifier, uint16_t type, uint32_t a, uint32_t b, uint32_t c, void *slot)
{
  return 0;
}
uint32_t control_oracle_response(uint16_t identifier, uint16_t type, uint32_t status, uint32_t data, void *slot)
{
  return 0;
}
uint32_t control_oracle_gref(uint32_t reference, uint16_t flags, uint16_t status, void *slot) { return 0; }
uint16_t control_oracle_type(uint32_t index) { return 0; }
uint32_t control_oracle_status(uint32_t index) { return 0; }
#endif
