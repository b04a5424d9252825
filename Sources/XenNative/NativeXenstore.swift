#if canImport(CXen)
  import CXen
  import Glibc
  import Synchronization
  import XenPlatform

  /// One connection to xenstored: its socket in the control domain, the kernel's xenbus elsewhere.
  ///
  /// That xenstored has ended shows at the next call: libxenstore wakes nobody who sleeps on the descriptor.
  ///
  /// Sendable: the handle never changes, and libxenstore guards it with locks of its own, since it reads watch events on a
  /// thread of its own.
  @safe package final class NativeXenstore: Xenstore, @unchecked Sendable {
    private let handle: OpaquePointer
    package let descriptor: CInt

    package init() throws(NativePlatformError) {
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

    package func read(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [UInt8] {
      var count: CUnsignedInt = 0
      let value = try unsafe call("read", path) { unsafe xs_read(handle, number(transaction), path, &count) }
      defer { unsafe free(value) }
      // Safe: the library allocated `count` bytes and a final zero.
      return unsafe [UInt8](UnsafeRawBufferPointer(start: value, count: Int(count)))
    }

    package func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
      // Safe: the library reads the array during the call.
      try succeed("write", path) {
        unsafe xs_write(handle, number(transaction), path, value, CUnsignedInt(value.count))
      }
    }

    package func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
      try succeed("mkdir", path) { unsafe xs_mkdir(handle, number(transaction), path) }
    }

    package func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
      try succeed("rm", path) { unsafe xs_rm(handle, number(transaction), path) }
    }

    package func directory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [String] {
      var count: CUnsignedInt = 0
      let names = try unsafe call("directory", path) { unsafe xs_directory(handle, number(transaction), path, &count) }
      defer { unsafe free(names) }
      // Safe: the library allocated `count` strings in one piece.
      return unsafe UnsafeBufferPointer(start: names, count: Int(count)).map { unsafe String(cString: $0!) }
    }

    // MARK: Permissions

    package func permissions(
      _ path: String, in transaction: XenstoreTransaction?
    ) throws(XenstoreError) -> [XenstorePermission] {
      var count: CUnsignedInt = 0
      let entries = try unsafe call("permissions of", path) {
        unsafe xs_get_permissions(handle, number(transaction), path, &count)
      }
      defer { unsafe free(entries) }
      // Safe: the library allocated `count` entries.
      return unsafe UnsafeBufferPointer(start: entries, count: Int(count)).map(XenstorePermission.init)
    }

    package func setPermissions(
      _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
    ) throws(XenstoreError) {
      var entries = permissions.map(xs_permissions.init)
      // Safe: the library reads the entries during the call.
      try succeed("set permissions of", path) {
        unsafe xs_set_permissions(handle, number(transaction), path, &entries, CUnsignedInt(permissions.count))
      }
    }

    // MARK: Transactions

    package func startTransaction() throws(XenstoreError) -> XenstoreTransaction {
      let number = try call("start transaction", "") {
        let number = unsafe xs_transaction_start(handle)
        return number == Self.noTransaction ? nil : number
      }
      return XenstoreTransaction(rawValue: number)
    }

    package func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError) {
      try succeed("end transaction", "") { unsafe xs_transaction_end(handle, transaction.rawValue, !commit) }
    }

    // MARK: Watches

    package func watch(_ path: String, token: String) throws(XenstoreError) {
      try check(token, "watch with token")
      try succeed("watch", path) { unsafe xs_watch(handle, path, token) }
    }

    package func unwatch(_ path: String, token: String) throws(XenstoreError) {
      try check(token, "unwatch token")
      try succeed("unwatch", path) { unsafe xs_unwatch(handle, path, token) }
    }

    package func nextWatchEvent() -> XenstoreWatchEvent? {
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

    /// One call of libxenstore, which gives nil when it fails.
    private func call<Result>(
      _ operation: String, _ path: String, _ body: () -> Result?
    ) throws(XenstoreError) -> Result {
      try check(path, operation)
      var (result, error): (Result?, CInt) = (nil, 0)
      Self.lock.withLock { _ in
        result = body()
        error = result == nil ? self.error() : 0
      }
      guard let result else { throw XenstoreError(XenstoreError.Code(errno: error), operation, path) }
      return result
    }

    /// One call of libxenstore, which gives false when it fails.
    private func succeed(
      _ operation: String, _ path: String, _ body: () -> Bool
    ) throws(XenstoreError) { try call(operation, path) { body() ? () : nil } }

    /// During each call libxenstore has the process ignore SIGPIPE, and puts back what it found. Two calls at once, on any
    /// connections, would end with what one of them found of the other's, and a xenstored that ends would take us with it.
    private static let lock = Mutex(())

    /// Why the last call failed.
    private func error() -> CInt {
      let error = errno
      // It says EINVAL also when the connection ends before the answer comes. Then it answers nothing else either.
      guard error == EINVAL else { return error }
      let answer = unsafe xs_get_domain_path(handle, 0)
      defer { unsafe free(answer) }
      return unsafe answer == nil ? EPIPE : error
    }

    /// Paths come from the other end too. C ends a string at the first zero, and would make of this one a path that nobody
    /// named.
    private func check(_ string: String, _ operation: String) throws(XenstoreError) {
      if string.utf8.contains(0) { throw XenstoreError(.invalid, operation, string) }
    }
  }
#endif
