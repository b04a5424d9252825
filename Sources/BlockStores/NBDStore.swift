#if canImport(CNBD)
  import BlkBack
  import CLinux
  import Glibc
  import Synchronization
  import SystemPackage

  /// A disk that an NBD server has: a qcow2 image through qemu-nbd, nbdkit's plugins, or storage across the network.
  ///
  /// Where the server says that several connections see each other's writes, each queue of the disk has one, as far as the server
  /// allows; else all queues share one. A connection that ends fails what is under way, with the reason, and is made again; requests
  /// that come meanwhile wait a while. Where something had been written and not flushed, nobody knows whether the server still has
  /// it: then all flushes fail from there on. A disk that the server has made larger or smaller is noticed when a connection is made.
  ///
  /// A server that knows no flush is taken at its word that what it has answered is on its medium, as the protocol has it.
  public final class NBDStore: BlockStore {
    private let address: NBDAddress
    private let options: NBDStoreOptions
    private let isReadOnly: Bool
    private let first: NBDConnection
    /// For whoever submits to the store itself.
    private let own: NBDQueue
    private let holder = Mutex(Holder())

    /// Of the first connection, where each queue has one; and whether the server has refused further ones, so that it is shared.
    private struct Holder {
      weak var queue: NBDQueue?
      var isLimited = false
    }

    /// Connects.
    public init(
      _ address: NBDAddress, isReadOnly: Bool = false, options: NBDStoreOptions = NBDStoreOptions()
    ) throws(NBDStoreError) {
      (self.address, self.options) = (address, options)
      first = try NBDConnection(address, options)
      self.isReadOnly = isReadOnly || first.currentExport.isReadOnly
      do throws(ResourceError) { own = try NBDQueue(first) } catch {
        throw .cannotConnect(address, reason: error.description)
      }
    }

    /// As it was when a connection was last made.
    public var geometry: BlockGeometry {
      let export = first.currentExport
      return BlockGeometry(
        sectorCount: export.byteCount / 512, sectorByteCount: export.sectorByteCount,
        physicalSectorByteCount: export.preferredByteCount, isReadOnly: isReadOnly,
        discard: export.canTrim && !isReadOnly ? DiscardLimits(granularity: export.preferredByteCount) : nil)
    }

    public func makeQueue() throws(ResourceError) -> any BlockStore {
      let export = first.currentExport
      guard export.canMultiConnect else { return try NBDQueue(first) }
      let (isFree, isLimited) = holder.withLock { ($0.queue == nil, $0.isLimited) }
      if !isFree, !isLimited, let connection = try? NBDConnection(address, options, first.disk, like: export) {
        return try NBDQueue(connection)
      }
      let queue = try NBDQueue(first)
      holder.withLock { $0 = isFree ? Holder(queue: queue) : Holder(queue: $0.queue, isLimited: true) }
      return queue
    }

    public func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
      own.submit(requests, to: &completions)
    }

    public func reap(into completions: inout StoreCompletions) { own.reap(into: &completions) }
    public var completionDescriptor: CInt? { own.completionDescriptor }
    public func abandon() { own.abandon() }
  }

  /// What one queue submits to.
  ///
  /// Sendable: its connection's lock guards what it has.
  final class NBDQueue: BlockStore, @unchecked Sendable {
    let connection: NBDConnection
    private let port: NBDConnection.Port
    private let epoll: CInt

    init(_ connection: NBDConnection) throws(ResourceError) {
      self.connection = connection
      port = try NBDConnection.Port()
      epoll = linux_epoll()
      guard epoll >= 0, linux_epoll_watch(epoll, connection.descriptor, 1, 0) == 0,
        linux_epoll_watch(epoll, port.wakeup.descriptor, 1, 0) == 0
      else { throw ResourceError("no file descriptor is left: raise the limit of open files") }
    }

    deinit { if epoll >= 0 { _ = close(epoll) } }

    /// Nobody asks a queue.
    var geometry: BlockGeometry { BlockGeometry(sectorCount: connection.currentExport.byteCount / 512) }
    var completionDescriptor: CInt? { epoll }

    func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
      connection.submit(requests, from: port, to: &completions)
    }

    func reap(into completions: inout StoreCompletions) { connection.reap(for: port, into: &completions) }

    func abandon() { connection.abandon(port) }
  }
#else
  /// A disk that an NBD server has: not in this build, which found no libnbd.
  @available(*, unavailable, message: "install libnbd-dev, then: swift package clean")
  public final class NBDStore {}
#endif
