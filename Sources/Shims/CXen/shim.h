// libxenstore, libxengnttab (with gntshr) and libxenevtchn, of package libxen-dev.
#ifndef C_XEN_SHIM_H
#define C_XEN_SHIM_H

#if __has_include(<xenstore.h>)

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>
#include <xentoollog.h>

static inline void xen_discard_message(struct xentoollog_logger *logger, xentoollog_level level, int error,
                                       const char *context, const char *format, va_list arguments) {
  (void)logger, (void)level, (void)error, (void)context, (void)format, (void)arguments;
}

static inline void xen_keep_logger(struct xentoollog_logger *logger) { (void)logger; }

/// A logger that says nothing. The default one writes to standard error whenever a call fails, so that the other end
/// could fill our log with bad references; every failure reaches us through errno as well.
static inline struct xentoollog_logger *xen_silent_logger(void) {
  static struct xentoollog_logger silent = {xen_discard_message, 0, xen_keep_logger};
  return &silent;
}

#endif

#endif
