#if canImport(CNBD)
  import CNBD
  import Glibc
  import SystemPackage
  import XenPlatform

  /// What a server says of its export.
  struct NBDExport: Equatable {
    var byteCount: UInt64
    /// The unit that it works in, and the one that it likes.
    var sectorByteCount: UInt32
    var preferredByteCount: UInt32
    /// Of one command's payload; at least a sector.
    var maxByteCount: Int
    var isReadOnly: Bool
    var canFlush: Bool
    var canTrim: Bool
    /// Several connections see each other's writes and flushes.
    var canMultiConnect: Bool
  }

  /// One connection of libnbd's, from when it is begun until it is closed. After that libnbd touches no memory of anybody's.
  @safe final class NBDLink {
    private let handle: OpaquePointer

    // Safe, each call: the handle is ours until we end.

    /// Begins to connect.
    ///
    /// - Throws: why that cannot be.
    init(to address: NBDAddress) throws(ResourceError) {
      guard let handle = unsafe nbd_create() else { throw Self.lastError }
      unsafe self.handle = handle
      // Every byte of a read that succeeds has been read.
      _ = unsafe nbd_set_pread_initialize(handle, false)
      let result: CInt
      switch address {
      case .uri(let uri): result = unsafe nbd_aio_connect_uri(handle, uri)
      case .unix(let path, let export):
        _ = unsafe nbd_set_export_name(handle, export)
        result = unsafe nbd_aio_connect_unix(handle, path.string)
      }
      if result != 0 { throw Self.lastError }
    }

    deinit { unsafe nbd_close(handle) }

    /// Of the call of this thread's that has just failed.
    static var lastError: ResourceError {
      ResourceError(unsafe nbd_get_error().map { unsafe String(cString: $0) } ?? "it fails and does not say why")
    }

    // MARK: The connection

    var isReady: Bool { unsafe nbd_aio_is_ready(handle) > 0 || nbd_aio_is_processing(handle) > 0 }

    var isDead: Bool { unsafe nbd_aio_is_dead(handle) != 0 || nbd_aio_is_closed(handle) != 0 }

    /// What to wait for: a descriptor, which changes while the connection is made, and which ways it is to be looked at.
    var wait: (descriptor: CInt, reads: Bool, writes: Bool)? {
      let descriptor = unsafe nbd_aio_get_fd(handle)
      guard descriptor >= 0 else { return nil }
      let direction = CInt(bitPattern: unsafe nbd_aio_get_direction(handle))
      return (descriptor, direction & LIBNBD_AIO_DIRECTION_READ != 0, direction & LIBNBD_AIO_DIRECTION_WRITE != 0)
    }

    /// Sends and receives what there is to.
    ///
    /// - Returns: why the connection has ended; nil when it has not.
    func progress() -> String? {
      while true {
        let result = unsafe nbd_poll(handle, 0)
        if result > 0 { continue }
        if result < 0, isDead { return Self.lastError.description }
        return isDead ? "it has closed the connection" : nil
      }
    }

    /// - Throws: why it is no disk.
    func export() throws(ResourceError) -> NBDExport {
      let size = unsafe nbd_get_size(handle)
      guard size > 0 else { throw ResourceError("its size is \(size)") }
      let sizes = [LIBNBD_SIZE_MINIMUM, LIBNBD_SIZE_PREFERRED, LIBNBD_SIZE_MAXIMUM].map {
        unsafe nbd_get_block_size(handle, $0)
      }
      let sector = max(512, sizes[0])
      guard sector <= 4096, sector.nonzeroBitCount == 1 else {
        throw ResourceError("it works in blocks of \(sector) bytes, and a guest's disk in 4096 at most")
      }
      guard size >= sector else { throw ResourceError("its size is \(size)") }
      let preferred = sizes[1] >= sector && sizes[1] <= 1 << 20 && sizes[1].nonzeroBitCount == 1 ? sizes[1] : sector
      let most = sizes[2] >= sector ? min(sizes[2], 32 << 20) / sector * sector : 32 << 20
      return NBDExport(
        byteCount: UInt64(size / sector * sector), sectorByteCount: UInt32(sector),
        preferredByteCount: UInt32(preferred), maxByteCount: Int(most),
        isReadOnly: unsafe nbd_is_read_only(handle) != 0,
        canFlush: unsafe nbd_can_flush(handle) > 0, canTrim: unsafe nbd_can_trim(handle) > 0,
        canMultiConnect: unsafe nbd_can_multi_conn(handle) > 0)
    }

    // MARK: Commands

    // Each gives what its completion brings; zero or less when it was not begun.

    /// The bytes are libnbd's until the completion, or until the connection is closed.
    func read(_ bytes: SharedBytes, at offset: UInt64) -> Int64 {
      unsafe nbd_aio_pread(handle, bytes.baseAddress, bytes.count, offset, nbd_completion_callback(), 0)
    }

    func write(_ bytes: SharedBytes, at offset: UInt64) -> Int64 {
      unsafe nbd_aio_pwrite(handle, bytes.baseAddress, bytes.count, offset, nbd_completion_callback(), 0)
    }

    func flush() -> Int64 { unsafe nbd_aio_flush(handle, nbd_completion_callback(), 0) }

    func trim(at offset: UInt64, byteCount: UInt64) -> Int64 {
      unsafe nbd_aio_trim(handle, byteCount, offset, nbd_completion_callback(), 0)
    }

    /// A command that has ended, and why it failed if it did.
    func nextCompleted() -> (command: Int64, fault: String?)? {
      let command = unsafe nbd_aio_peek_command_completed(handle)
      guard command > 0 else { return nil }
      let result = unsafe nbd_aio_command_completed(handle, UInt64(command))
      return (command, result > 0 ? nil : Self.lastError.description)
    }
  }
#endif
