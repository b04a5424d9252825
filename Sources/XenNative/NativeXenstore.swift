#if canImport(CXen)
  import CXen
  import Glibc
  import XenPlatform

  /// One connection to xenstored: its socket in the control domain, the kernel's xenbus elsewhere.
  ///
  /// Sendable: the handle never changes, and libxenstore guards it with locks of its own, since it reads watch events on a
  /// thread of its own.
  @safe final class NativeXenstore: Xenstore, @unchecked Sendable {
    private let handle: OpaquePointer
    let descriptor: CInt

    init() throws(NativePlatformError) {
      guard let handle = unsafe xs_open(0) else {
        let reason = words(for: errno)
        throw NativePlatformError.isXenDomain ? .storeUnreachable(reason: reason) : .notXen
      }
      unsafe self.handle = handle
      descriptor = unsafe xs_fileno(handle)
      guard descriptor >= 0 else {
        throw .system(call: "cannot have xenstore's descriptor", reason: words(for: errno))
      }
    }

    deinit { unsafe xs_close(handle) }

    // MARK: Nodes

    func read(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [UInt8] {
      try check(path, "read")
      var count: CUnsignedInt = 0
      guard let value = unsafe xs_read(handle, number(transaction), path, &count) else { throw failure("read", path) }
      defer { unsafe free(value) }
      // Safe: the library allocated `count` bytes and a final zero.
      return unsafe [UInt8](UnsafeRawBufferPointer(start: value, count: Int(count)))
    }

    func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
      try check(path, "write")
      // Safe: the library reads the array during the call.
      guard unsafe xs_write(handle, number(transaction), path, value, CUnsignedInt(value.count)) else {
        throw failure("write", path)
      }
    }

    func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
      try check(path, "mkdir")
      guard unsafe xs_mkdir(handle, number(transaction), path) else { throw failure("mkdir", path) }
    }

    func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
      try check(path, "rm")
      guard unsafe xs_rm(handle, number(transaction), path) else { throw failure("rm", path) }
    }

    func directory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [String] {
      try check(path, "directory")
      var count: CUnsignedInt = 0
      guard let names = unsafe xs_directory(handle, number(transaction), path, &count) else {
        throw failure("directory", path)
      }
      defer { unsafe free(names) }
      // Safe: the library allocated `count` strings in one piece.
      return unsafe UnsafeBufferPointer(start: names, count: Int(count)).map { unsafe String(cString: $0!) }
    }

    // MARK: Permissions

    func permissions(
      _ path: String, in transaction: XenstoreTransaction?
    ) throws(XenstoreError) -> [XenstorePermission] {
      try check(path, "permissions of")
      var count: CUnsignedInt = 0
      guard let entries = unsafe xs_get_permissions(handle, number(transaction), path, &count) else {
        throw failure("permissions of", path)
      }
      defer { unsafe free(entries) }
      // Safe: the library allocated `count` entries.
      return unsafe UnsafeBufferPointer(start: entries, count: Int(count)).map(XenstorePermission.init)
    }

    func setPermissions(
      _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
    ) throws(XenstoreError) {
      try check(path, "set permissions of")
      var entries = permissions.map(xs_permissions.init)
      // Safe: the library reads the entries during the call.
      guard
        unsafe xs_set_permissions(handle, number(transaction), path, &entries, CUnsignedInt(permissions.count))
      else { throw failure("set permissions of", path) }
    }

    // MARK: Transactions

    func startTransaction() throws(XenstoreError) -> XenstoreTransaction {
      let number = unsafe xs_transaction_start(handle)
      guard number != Self.noTransaction else { throw failure("start transaction", "") }
      return XenstoreTransaction(rawValue: number)
    }

    func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError) {
      guard unsafe xs_transaction_end(handle, transaction.rawValue, !commit) else {
        throw failure("end transaction", "")
      }
    }

    // MARK: Watches

    func watch(_ path: String, token: String) throws(XenstoreError) {
      try check(path, "watch")
      try check(token, "watch with token")
      guard unsafe xs_watch(handle, path, token) else { throw failure("watch", path) }
    }

    func unwatch(_ path: String, token: String) throws(XenstoreError) {
      try check(path, "unwatch")
      try check(token, "unwatch token")
      guard unsafe xs_unwatch(handle, path, token) else { throw failure("unwatch", path) }
    }

    func nextWatchEvent() -> XenstoreWatchEvent? {
      guard let strings = unsafe xs_check_watch(handle) else { return nil }
      defer { unsafe free(strings) }
      // Safe: the library promises two strings, the path and the token.
      return unsafe XenstoreWatchEvent(path: String(cString: strings[0]!), token: String(cString: strings[1]!))
    }

    // MARK: Helpers

    /// `XBT_NULL`
    private static let noTransaction: xs_transaction_t = 0

    private func number(_ transaction: XenstoreTransaction?) -> xs_transaction_t {
      transaction?.rawValue ?? Self.noTransaction
    }

    /// Paths come from the other end too. C ends a string at the first zero, and would make of this one a path that nobody
    /// named.
    private func check(_ string: String, _ operation: String) throws(XenstoreError) {
      if string.utf8.contains(0) { throw XenstoreError(.invalid, operation, string) }
    }

    private func failure(_ operation: String, _ path: String) -> XenstoreError {
      XenstoreError(XenstoreError.Code(errno: errno), operation, path)
    }
  }
#endif
