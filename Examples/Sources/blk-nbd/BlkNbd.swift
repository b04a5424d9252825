import ArgumentParser
import BlkBack
import BlkBackTool
import BlkFront
import BlockStores
import ExampleSupport
import Foundation
import NBDProtocol

@main struct BlkNbd: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "blk-nbd",
    abstract: "Exports an image over NBD, through both ends of the Xen block drivers.",
    discussion: """
      A driver domain serves the image as a disk of a guest, on a Xen inside this process, and the guest exports that disk \
      as a network block device on a unix socket, under the empty name. Every byte that a client reads or writes crosses \
      shared rings, grants and event channels:

        blk-nbd --image disk.img --socket disk.sock
        nbdinfo 'nbd+unix:///?socket=disk.sock'
        nbdcopy disk.img 'nbd+unix:///?socket=disk.sock'
        nbdcopy 'nbd+unix:///?socket=disk.sock' copy.img
        qemu-io -f raw -c 'write -P 7 3k 10k' 'nbd+unix:///?socket=disk.sock'

      The disk can also be what is written over an image that stays as it is, one of another NBD server's, or encrypted:

        blk-nbd --store overlay --base disk.img --image changes --socket disk.sock
        qemu-nbd --socket=$PWD/qemu.sock disk.qcow2 &
        blk-nbd --store nbd --image qemu.sock --socket disk.sock
        head -c 32 /dev/urandom >key
        blk-nbd --key-file key --image disk.img --socket disk.sock

      The handshake is fixed newstyle; commands are READ, WRITE, FLUSH and DISC, with FUA. Up to \
      \(NBDServer.maximumClients) clients at once share the disk, and a flush by one covers what any of them has written. \
      Requests carry up to 32 MiB. A client that asks for the block sizes is held to them, and its unaligned requests are \
      refused; one that does not may address every byte.

      Ends at SIGINT or SIGTERM, when the requests under way have been answered, and says then what it has done. The image \
      is locked meanwhile. A socket that a killed server has left behind is taken over; one at which a server listens is not.
      """)

  @Option(
    help: ArgumentHelp(
      "The image to export: a raw one, a file or a block device of whole sectors, unless --store says otherwise.",
      valueName: "file"))
  var image: String

  @Option(help: ArgumentHelp("Where to make the unix socket; removed in the end.", valueName: "path"))
  var socket: String

  @Flag(help: "Refuse all writes, and let others read the image meanwhile.")
  var readOnly = false

  @Option(help: ArgumentHelp("The most rings that the two ends share.", valueName: "count"))
  var queues = 1

  @Option(
    help: ArgumentHelp(
      "Two to the power of this pages in a ring at most, 0 to 4; a page has 32 slots.", valueName: "order"))
  var ringOrder = 0

  @Option(
    help: ArgumentHelp(
      "The most pages of 4 KiB that one request carries, up to 256; up to 11 no indirect requests are made.",
      valueName: "pages"))
  var indirect = 32

  @Flag(inversion: .prefixedNo, help: "Keep pages mapped from request to request, in place of copying each.")
  var persistent = true

  @OptionGroup var stores: StoreOptions

  func validate() throws {
    guard (1...4).contains(queues) else { throw ValidationError("--queues takes a number from 1 to 4") }
    guard (0...4).contains(ringOrder) else { throw ValidationError("--ring-order takes a number from 0 to 4") }
    guard (0...256).contains(indirect) else { throw ValidationError("--indirect takes a number from 0 to 256") }
  }

  /// A pool for as many large requests as the defaults carry.
  private var options: BlkFrontOptions {
    var options = BlkFrontOptions(poolPageCount: max(32 << ringOrder, indirect) * BlkIf.maxSegmentCount)
    (options.maxQueueCount, options.maxRingPageOrder) = (queues, ringOrder)
    (options.maxIndirectSegmentCount, options.usesPersistentGrants) = (indirect, persistent)
    return options
  }

  func run() async throws {
    let signals = Signals(SIGINT, SIGTERM)
    let store = try open()
    let backend = Told<BlkBackStatistics>()
    let machine = try Machine { (bus) throws(XenstoreError) in
      try bus.register(BlkBackDriver(whenClosed: { backend.tell($1) }) { _ in store })
    }
    let device = try machine.toolstack.addVbd(
      to: machine.guest.domain, servedBy: machine.driverDomain.domain, params: image, isReadOnly: readOnly)
    // This Xen is ours alone.
    machine.guest.sharedPageLimit = 1 << 16
    let disk = try await BlkFrontDisk.connect(
      to: device.frontendPath, on: machine.guest, options: options, log: .quiet)
    let service = NBDService(disk)
    do {
      let server = try await NBDServer(service, at: UnixSocketPath(socket))
      say("blk-nbd: serving \(image), \(Self.size(service.export.byteCount)), at \(server.uri)")
      await signals.next()
      try await server.stop()
    } catch {
      await disk.close()
      throw error
    }
    await disk.close()
    try machine.toolstack.destroy(device)
    machine.end()
    say("blk-nbd: \(service.statistics.sentence); \(Self.sentence(of: backend.all))")
  }

  private func open() throws -> any BlockStore {
    do { return try stores.open(image, isReadOnly: readOnly).store } catch { throw ExampleError("\(error)") }
  }

  private static func size(_ byteCount: UInt64) -> String {
    for (shift, unit) in [(UInt64(30), "GiB"), (20, "MiB"), (10, "KiB")] where byteCount % (1 << shift) == 0 {
      return "\(byteCount >> shift) \(unit)"
    }
    return "\(byteCount) bytes"
  }

  private static func sentence(of all: [BlkBackStatistics]) -> String {
    let reads = all.map(\.readRequests).reduce(0, +)
    let writes = all.map(\.writeRequests).reduce(0, +)
    let flushes = all.map(\.flushRequests).reduce(0, +)
    return "the disk carried out \(reads) reads, \(writes) writes, \(flushes) flushes"
  }
}

/// Signals as a sequence, in place of what they do by themselves.
final class Signals {
  private let stream: AsyncStream<CInt>
  private let sources: [any DispatchSourceSignal]

  init(_ numbers: CInt...) {
    let (stream, continuation) = AsyncStream.makeStream(of: CInt.self)
    self.stream = stream
    sources = numbers.map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number)
      source.setEventHandler { continuation.yield(number) }
      source.resume()
      return source
    }
  }

  func next() async { for await _ in stream { return } }
}
