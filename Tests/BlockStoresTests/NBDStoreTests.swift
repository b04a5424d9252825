import BlkBack
import Glibc
import SystemPackage
import TestSupport
import Testing

@testable import BlockStores

/// A server of others' on a socket in a folder of its own.
final class NBDServer {
  let socket: FilePath
  private let folder: String
  private let arguments: [String]
  private var program: Program?

  /// `nbdkit` with these.
  convenience init(nbdkit arguments: String...) throws {
    try self.init { ["nbdkit", "--foreground", "--exit-with-parent", "--unix", $0] + arguments }
  }

  /// - Parameter arguments: a program, given its socket's path.
  init(_ arguments: (String) -> [String]) throws {
    folder = try Program.run("mktemp", "-d")
    socket = FilePath(folder).appending("socket")
    self.arguments = arguments(socket.string)
    try start()
  }

  deinit {
    kill()
    _ = unsafe rmdir(folder)
  }

  var address: NBDAddress { .unix(socket) }

  func start(_ others: [String] = []) throws {
    _ = unsafe unlink(socket.string)
    program = try Program(arguments + others)
    try #require(waits { isListening }, "\(arguments[0]) does not listen")
  }

  private var isListening: Bool {
    let descriptor = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    defer { _ = close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // Safe: the folder's name is a short one, and the lengths are those of what is pointed to.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: socket.string.utf8) }
    return unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
      }
    }
  }

  /// Has it do nothing until it is sent SIGCONT.
  func stop() {
    program?.send(SIGSTOP)
    _ = waits { program?.isStopped ?? true }
  }

  func send(_ signal: CInt) { program?.send(signal) }

  func kill() {
    program?.end(by: SIGKILL)
    program = nil
    _ = unsafe unlink(socket.string)
  }
}

/// Disks of real servers', and what becomes of them when those fail, stall, die and come back.
@Suite(.enabled(if: Program.isInstalled("nbdkit"), "there is no nbdkit"))
struct NBDStoreTests {
  private func options(request: Double = 20, wait: Double = 20) -> NBDStoreOptions {
    var options = NBDStoreOptions()
    (options.requestSeconds, options.waitSeconds) = (request, wait)
    return options
  }

  @Test func serversBytesAreReadAndWritten() throws {
    let server = try NBDServer(nbdkit: "memory", "1M")
    let store = try NBDStore(server.address)
    #expect(store.geometry.sectorCount == 2048 && !store.geometry.isReadOnly)
    #expect(store.geometry.discard != nil && store.geometry.discard?.isSecure == false)
    let driver = try StoreDriver(queueOf: store)
    let bytes = pattern(20_480, seed: 1)
    #expect(driver.write(bytes, sector: 100))
    #expect(driver.read(sector: 100, byteCount: bytes.count) == bytes)
    #expect(driver.perform(.flush, sector: 0))
    // In pieces, and not next to each other.
    let places = [4096..<8192, 512..<1024, 12_800..<13_312, 16_384..<20_480]
    driver.memory.slice(from: 0, count: bytes.count).copy(from: bytes.span)
    #expect(driver.perform(.write, sector: 7, places))
    let expected = places.flatMap { bytes[$0] }
    #expect(driver.read(sector: 7, byteCount: expected.count) == expected)
    driver.memory.slice(from: 0, count: 32_768).copy(from: [UInt8](repeating: 0xEE, count: 32_768).span)
    #expect(driver.perform(.read, sector: 7, places))
    #expect(places.flatMap { driver.memory.slice(from: $0.lowerBound, count: $0.count).copied() } == expected)
    #expect(driver.memory.slice(from: 1024, count: 3072).copied() == [UInt8](repeating: 0xEE, count: 3072))
    #expect(driver.perform(.discard, sector: 100, sectorCount: 40))
    #expect(driver.read(sector: 100, byteCount: bytes.count) == [UInt8](repeating: 0, count: bytes.count))
    driver.memory.slice(from: 0, count: 4096).copy(from: pattern(4096, seed: 2).span)
    #expect(driver.perform(.writeBarrier, sector: 8, [0..<4096]) && driver.perform(.writeBarrier, sector: 0))
    #expect(driver.read(sector: 8, byteCount: 4096) == pattern(4096, seed: 2))
  }

  @Test func uriAndNamedExportAreConnectedTo() throws {
    let server = try NBDServer(nbdkit: "memory", "64K")
    let store = try NBDStore(NBDAddress("nbd+unix:///?socket=\(server.socket)"))
    #expect(store.geometry.sectorCount == 128)
    #expect(NBDAddress("/run/server") == .unix("/run/server"))
    #expect(try NBDStore(.unix(server.socket, export: "any")).geometry.sectorCount == 128)
  }

  @Test(.enabled(if: Program.isInstalled("qemu-nbd"), "there is no qemu-nbd")) func qcow2ImageIsServedByQemu() throws {
    let image = try TemporaryFile()
    try Program.run("qemu-img", "create", "-q", "-f", "qcow2", image.path.string, "8M")
    let server = try NBDServer {
      ["qemu-nbd", "--persistent", "--format=qcow2", "--discard=unmap", "--socket=\($0)", image.path.string]
    }
    do {
      let driver = try StoreDriver(queueOf: NBDStore(server.address))
      #expect(driver.write(pattern(65_536, seed: 3), sector: 1000) && driver.perform(.flush, sector: 0))
    }
    server.kill()
    try server.start()
    let driver = try StoreDriver(queueOf: NBDStore(server.address))
    #expect(driver.read(sector: 1000, byteCount: 65_536) == pattern(65_536, seed: 3))
    #expect(driver.read(sector: 0, byteCount: 4096) == [UInt8](repeating: 0, count: 4096))
  }

  @Test func manyRequestsAreUnderWayAtOnce() throws {
    let server = try NBDServer(nbdkit: "--filter=delay", "memory", "4M", "rdelay=1")
    let driver = try StoreDriver(queueOf: NBDStore(server.address))
    // One after the other these would take a minute.
    for index in 0..<60 { driver.put(.read, sector: UInt64(index * 8), [index * 4096..<index * 4096 + 4096]) }
    for index in 60..<100 { driver.put(.write, sector: UInt64(index * 8), [index * 4096..<index * 4096 + 4096]) }
    let start = Uptime.now.nanoseconds
    #expect(driver.run() && driver.results.values.allSatisfy { $0 })
    #expect(Uptime.now.nanoseconds - start < 40_000_000_000)
  }

  @Test func commandThatFailsFailsAlone() throws {
    let trigger = try TemporaryFile()
    let server = try NBDServer(
      nbdkit: "--filter=error", "memory", "1M", "error=EIO", "error-pread-rate=100%",
      "error-file=\(trigger.path)")
    let driver = try StoreDriver(queueOf: NBDStore(server.address))
    driver.put(.read, sector: 0, [0..<512])
    driver.put(.write, sector: 8, [0..<512])
    #expect(driver.run() && driver.results == [0: false, 1: true])
    let failure = try #require(driver.failure)
    #expect(
      failure.hasPrefix("the NBD server \(server.socket): ") && failure.contains("Input/output error")
        && failure.hasSuffix(": a read at sector 0 failed"))
    driver.forget()
    _ = unsafe unlink(trigger.path.string)
    #expect(driver.read(sector: 8, byteCount: 512) != nil)
  }

  @Test func serverThatDiesFailsWhatItHadAndServesOnWhenItIsBack() throws {
    let server = try NBDServer(nbdkit: "--filter=delay", "memory", "1M", "rdelay=60")
    let driver = try StoreDriver(queueOf: NBDStore(server.address, options: options()))
    for index in 0..<10 { driver.put(.read, sector: UInt64(index * 8), [index * 4096..<index * 4096 + 4096]) }
    driver.submit()
    usleep(100_000)
    driver.reap()
    #expect(driver.results.isEmpty)
    server.kill()
    #expect(driver.run())
    #expect(driver.results.count == 10 && driver.results.values.allSatisfy { !$0 })
    #expect(driver.failure?.hasPrefix("the NBD server \(server.socket): ") == true, "\(driver.failure ?? "")")
    driver.forget()
    // Waits for the next one.
    let thread = onThread {
      usleep(400_000)
      try! server.start(["rdelay=0"])
    }
    #expect(driver.write(pattern(4096, seed: 4), sector: 16))
    thread.join()
    #expect(driver.read(sector: 16, byteCount: 4096) == pattern(4096, seed: 4))
  }

  /// Nobody knows what a server that has died had in its memory alone; whoever comes back says nothing of it.
  @Test(arguments: [false, true]) func writesThatNoFlushHasCoveredFailTheFlushesBehindTheLoss(isCovered: Bool) throws {
    let server = try NBDServer(nbdkit: "memory", "1M")
    let store = try NBDStore(server.address, options: options())
    let (driver, other) = (try StoreDriver(queueOf: store), try StoreDriver(queueOf: store))
    #expect(driver.perform(.flush, sector: 0) && driver.write(pattern(4096, seed: 4), sector: 16))
    // On another connection, which covers the writes of all.
    if isCovered { #expect(other.perform(.flush, sector: 0)) }
    server.kill()
    try server.start()
    for driver in [driver, other] {
      // What finds the connection dead fails with it.
      #expect(waits { driver.read(sector: 16, byteCount: 512) == [UInt8](repeating: 0, count: 512) })
    }
    for driver in [driver, other] {
      for kind in [BlkRequest.Kind.flush, .writeBarrier] {
        driver.put(kind, sector: 0)
        #expect(driver.run() && driver.results == [0: isCovered])
        #expect(driver.failure?.contains("writes that were not flushed, which may be lost") ?? false != isCovered)
        driver.forget()
      }
    }
    #expect(driver.write(pattern(512, seed: 5), sector: 0) && driver.read(sector: 0, byteCount: 512) != nil)
    // A disk that is connected anew begins anew.
    let next = try StoreDriver(queueOf: NBDStore(server.address))
    #expect(next.perform(.flush, sector: 0))
  }

  @Test func lostWritesAreNotForgottenWhenTheServerReturnsWithoutFlush() throws {
    let trigger = try TemporaryFile()
    let server = try NBDServer(
      nbdkit: "eval", "get_size=echo 1M", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null", "flush=exit 0",
      "can_flush=test -e \(trigger.path) || exit 3")
    let driver = try StoreDriver(queueOf: NBDStore(server.address, options: options()))
    #expect(driver.perform(.flush, sector: 0) && driver.write(pattern(4096, seed: 4), sector: 16))
    server.kill()
    _ = unsafe unlink(trigger.path.string)
    try server.start()
    #expect(waits { driver.read(sector: 16, byteCount: 512) != nil })
    #expect(!driver.perform(.flush, sector: 0))
  }

  /// Nobody waits for it any more: what comes next on the disk must not be written over.
  @Test func abandonedQueueBeginsNothingMore() throws {
    let server = try NBDServer(nbdkit: "--filter=delay", "memory", "4G", "delay-trim=300ms")
    let store = try NBDStore(server.address, options: options())
    let (driver, other) = (try StoreDriver(queueOf: store), try StoreDriver(queueOf: store))
    #expect(driver.write(pattern(4096, seed: 1), sector: 3 << 21) && driver.write(pattern(4096, seed: 2), sector: 0))
    // In four commands.
    driver.put(.discard, sector: 0, sectorCount: 4 << 21)
    driver.submit()
    driver.queue.abandon()
    #expect(driver.run() && driver.results == [0: false])
    #expect(driver.failure?.contains("its frontend has left") == true)
    #expect(other.read(sector: 3 << 21, byteCount: 4096) == pattern(4096, seed: 1))
    #expect(other.read(sector: 0, byteCount: 4096) == [UInt8](repeating: 0, count: 4096))
    // What waits for a server does not wait any more.
    let third = try StoreDriver(queueOf: store)
    server.kill()
    #expect(waits { third.read(sector: 0, byteCount: 512) == nil })
    third.forget()
    third.put(.write, sector: 0, [0..<512])
    third.submit()
    #expect(third.results.isEmpty)
    third.queue.abandon()
    #expect(third.run() && third.results == [0: false])
  }

  @Test func serverThatReturnsWithSmallerBlocksKeepsTheDisksSectors() throws {
    let blocks = "blocksize-minimum="
    let server = try NBDServer(nbdkit: "--filter=blocksize-policy", "memory", "1M", blocks + "4096")
    let store = try NBDStore(server.address, options: options())
    let driver = try StoreDriver(queueOf: store)
    #expect(store.geometry.sectorByteCount == 4096 && store.geometry.sectorCount == 2048)
    server.kill()
    try server.start([blocks + "512", "size=1049088"])
    #expect(waits { driver.read(sector: 0, byteCount: 4096) != nil })
    // Another connection of the same disk's.
    #expect(try StoreDriver(queueOf: store).read(sector: 8, byteCount: 4096) != nil)
    #expect(store.geometry.sectorByteCount == 4096 && store.geometry.sectorCount == 2048)
  }

  @Test func serverWithFewerConnectionsThanQueuesHasThemShared() throws {
    let server = try NBDServer(nbdkit: "--filter=limit", "memory", "1M", "limit=2")
    var options = options()
    options.connectSeconds = 60
    let store = try NBDStore(server.address, options: options)
    let drivers = try (0..<4).map { _ in try StoreDriver(queueOf: store) }
    for (number, driver) in drivers.enumerated() {
      #expect(driver.write(pattern(4096, seed: number), sector: UInt64(8 * number)))
    }
    for (number, driver) in drivers.reversed().enumerated() {
      #expect(driver.read(sector: UInt64(8 * number), byteCount: 4096) == pattern(4096, seed: number))
    }
  }

  @Test func serverThatStaysAwayIsWaitedForAndNoLonger() throws {
    let server = try NBDServer(nbdkit: "memory", "1M")
    let driver = try StoreDriver(queueOf: NBDStore(server.address, options: options(wait: 0.3)))
    #expect(driver.read(sector: 0, byteCount: 512) != nil)
    server.kill()
    for _ in 0..<2 {
      driver.put(.write, sector: 0, [0..<512])
      driver.put(.flush, sector: 0)
      #expect(driver.run())
      #expect(driver.results == [0: false, 1: false])
      #expect(driver.failure?.hasPrefix("the NBD server \(server.socket): ") == true)
      driver.forget()
    }
    try server.start()
    #expect(waits { driver.read(sector: 0, byteCount: 512) != nil })
  }

  @Test func serverThatStallsIsGivenUp() throws {
    let server = try NBDServer(nbdkit: "memory", "1M")
    let driver = try StoreDriver(queueOf: NBDStore(server.address, options: options(request: 3, wait: 0.5)))
    #expect(driver.read(sector: 0, byteCount: 512) != nil)
    // Longer than a command may take, with none under way.
    usleep(3_100_000)
    driver.reap()
    server.stop()
    driver.put(.read, sector: 0, [0..<512])
    driver.put(.write, sector: 0, [512..<1024])
    #expect(driver.run() && driver.results == [0: false, 1: false])
    #expect(
      driver.failure == "the NBD server \(server.socket): it has not answered for 3 seconds: a read at sector 0 failed")
    driver.forget()
    // Stopped for so long it may not live on: another one takes its place.
    server.kill()
    try server.start()
    #expect(waits { driver.read(sector: 0, byteCount: 512) != nil })
  }

  @Test func queuesHaveAConnectionEachOrShareOne() throws {
    for (mode, isShared) in [("disable", true), ("emulate", false)] {
      let server = try NBDServer(nbdkit: "--filter=multi-conn", "memory", "1M", "multi-conn-mode=\(mode)")
      let store = try NBDStore(server.address)
      let drivers = try (0..<3).map { _ in try StoreDriver(queueOf: store) }
      let connections = Set(drivers.map { ObjectIdentifier(($0.queue as! NBDQueue).connection) })
      #expect(connections.count == (isShared ? 1 : 3))
      // Each on a thread of its own, at the same time.
      let threads = drivers.enumerated().map { number, driver in
        onThread {
          for round in 0..<50 {
            let bytes = [UInt8](repeating: UInt8(number * 50 + round), count: 4096)
            let sector = UInt64(number * 512 + round * 8)
            precondition(driver.write(bytes, sector: sector))
            precondition(driver.read(sector: sector, byteCount: 4096) == bytes)
          }
        }
      }
      for thread in threads { thread.join() }
      #expect(drivers[0].perform(.flush, sector: 0))
      #expect(drivers[0].read(sector: 1024, byteCount: 512) == [UInt8](repeating: 100, count: 512))
    }
  }

  /// Its queue is given up while the server still has something of it, and the others' go on.
  @Test func queueThatIsGivenUpHoldsUpNobody() throws {
    let server = try NBDServer(
      nbdkit: "--filter=multi-conn", "--filter=delay", "memory", "1M", "multi-conn-mode=disable", "rdelay=300ms")
    let store = try NBDStore(server.address)
    let other = try StoreDriver(queueOf: store)
    let driver = try StoreDriver(queueOf: store)
    driver.put(.read, sector: 0, [0..<512])
    driver.submit()
    #expect(driver.results.isEmpty)
    // As BlkBack does it, which has the queue and its memory until all is completed.
    driver.queue.abandon()
    #expect(other.read(sector: 0, byteCount: 512) != nil)
    #expect(driver.run() && driver.results.count == 1)
  }

  @Test func sizeIsThatOfTheServerNow() throws {
    let server = try NBDServer(nbdkit: "--filter=truncate", "memory", "1M", "truncate=1M")
    let store = try NBDStore(server.address)
    let driver = try StoreDriver(queueOf: store)
    #expect(driver.read(sector: 2047, byteCount: 512) != nil)
    server.kill()
    try server.start(["truncate=2M"])
    #expect(waits { driver.read(sector: 0, byteCount: 512) != nil && store.geometry.sectorCount == 4096 })
    #expect(driver.read(sector: 4095, byteCount: 512) != nil)
  }

  @Test func hugeDiscardIsSplit() throws {
    let server = try NBDServer(nbdkit: "memory", "5G")
    let store = try NBDStore(server.address)
    let driver = try StoreDriver(queueOf: store)
    let last = store.geometry.sectorCount - 8
    #expect(driver.write(pattern(4096, seed: 5), sector: last))
    #expect(driver.perform(.discard, sector: 0, sectorCount: store.geometry.sectorCount))
    #expect(driver.read(sector: last, byteCount: 4096) == [UInt8](repeating: 0, count: 4096))
  }

  @Test func readOnlyServerOffersNoDiscard() throws {
    let server = try NBDServer(nbdkit: "--readonly", "memory", "1M")
    let store = try NBDStore(server.address)
    #expect(store.geometry.isReadOnly && store.geometry.discard == nil)
    let writable = try NBDServer(nbdkit: "memory", "1M")
    let told = try NBDStore(writable.address, isReadOnly: true)
    #expect(told.geometry.isReadOnly && told.geometry.discard == nil)
  }

  @Test func whatIsNoDiskIsRefusedWithASentence() throws {
    #expect {
      try NBDStore(.unix("/nowhere/socket"))
    } throws: {
      "\($0)".hasPrefix("the NBD server /nowhere/socket cannot be connected to: ")
    }
    #expect {
      try NBDStore(NBDAddress("nothing://x"))
    } throws: {
      "\($0)".hasPrefix("the NBD server nothing://x cannot be connected to: ")
    }
    let empty = try NBDServer(nbdkit: "memory", "0")
    #expect(throws: NBDStoreError.unfit(empty.address, reason: "its size is 0")) { try NBDStore(empty.address) }
    let coarse = try NBDServer(
      nbdkit: "--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=8192", "blocksize-preferred=8192",
      "blocksize-maximum=1M", "blocksize-error-policy=error")
    #expect {
      try NBDStore(coarse.address)
    } throws: {
      "\($0)".contains("offers no disk: it works in blocks of 8192 bytes")
    }
    // Somebody who takes the connection and says nothing.
    let silent = try NBDServer(nbdkit: "memory", "1M")
    silent.stop()
    var options = options()
    options.connectSeconds = 0.3
    #expect(throws: NBDStoreError.cannotConnect(silent.address, reason: "it does not answer")) {
      try NBDStore(silent.address, options: options)
    }
  }

  @Test func serverOfLargeBlocksIsADiskOfLargeSectors() throws {
    let server = try NBDServer(
      nbdkit: "--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=4096", "blocksize-preferred=65536",
      "blocksize-maximum=65536", "blocksize-error-policy=error")
    let store = try NBDStore(server.address)
    #expect(store.geometry.sectorByteCount == 4096 && store.geometry.physicalSectorByteCount == 65_536)
    let driver = try StoreDriver(queueOf: store)
    // More than one command may carry.
    let bytes = pattern(200 * 1024, seed: 6)
    #expect(driver.write(bytes, sector: 8))
    #expect(driver.read(sector: 8, byteCount: bytes.count) == bytes)
  }
}
