#if canImport(CXen)
  import CXen
  import Glibc
  import XenPlatform

  extension XenstoreError.Code {
    init(errno error: CInt) {
      switch error {
      case ENOENT: self = .notFound
      case EACCES, EPERM: self = .permissionDenied
      case EAGAIN: self = .conflict
      case EEXIST: self = .exists
      case EINVAL: self = .invalid
      case E2BIG: self = .tooBig
      case ENOSPC, EDQUOT: self = .quotaExceeded
      // What libxenstore says of a connection that has ended, then and ever after.
      case EBADF, EPIPE, ECONNRESET:
        self = .system("xenstored has ended the connection; when it runs, start this program again")
      default: self = .system(words(for: error))
      }
    }
  }

  extension XenstorePermission {
    init(_ entry: xs_permissions) {
      let (read, write) = (
        entry.perms & CUnsignedInt(XS_PERM_READ) != 0, entry.perms & CUnsignedInt(XS_PERM_WRITE) != 0
      )
      let access: Access = read ? (write ? .both : .read) : (write ? .write : .none)
      self.init(DomainID(rawValue: UInt16(truncatingIfNeeded: entry.id)), access)
    }
  }

  extension xs_permissions {
    init(_ permission: XenstorePermission) {
      let bits =
        switch permission.access {
        case .none: XS_PERM_NONE
        case .read: XS_PERM_READ
        case .write: XS_PERM_WRITE
        case .both: XS_PERM_READ | XS_PERM_WRITE
        }
      self.init(id: CUnsignedInt(permission.domain.rawValue), perms: CUnsignedInt(bits))
    }
  }
#endif
