import BlkBack
import Glibc
import SystemPackage
import TestSupport
import Testing

@testable import BlockStores

/// A file as a block device.
final class LoopDevice {
  let path: FilePath

  init(_ file: FilePath, sectorByteCount: Int = 512) throws {
    path = FilePath(try Program.run("losetup", "--find", "--show", "--sector-size", "\(sectorByteCount)", file.string))
  }

  deinit { _ = try? Program.run("losetup", "--detach", path.string) }

  /// Nil where there can be some.
  static let absence: String? = {
    guard Program.isInstalled("losetup") else { return "there is no losetup" }
    guard let file = try? TemporaryFile(byteCount: 1 << 20), (try? LoopDevice(file.path)) != nil else {
      return "no loop device can be made: this needs root"
    }
    return nil
  }()
}

/// Block devices of this machine's, for which loop devices stand.
@Suite(.enabled(if: LoopDevice.absence == nil, Comment(rawValue: LoopDevice.absence ?? "")), .serialized)
struct BlockDeviceTests {
  @Test(arguments: [512, 4096], FileWay.allCases) func deviceIsServedInItsOwnSectors(
    _ sectorByteCount: Int, _ way: FileWay
  ) throws {
    let content = pattern(1 << 20, seed: 1)
    let file = try TemporaryFile(content)
    let device = try LoopDevice(file.path, sectorByteCount: sectorByteCount)
    let store = try FileStore(path: device.path, options: way.options)
    #expect(store.geometry.sectorCount == 2048 && Int(store.geometry.sectorByteCount) == sectorByteCount)
    #expect(store.isDirect == (way == .ringDirect || way == .callsDirect))
    let driver = try way.driver(store)
    #expect(driver.read(sector: 64, byteCount: 65_536) == Array(content[32_768..<98_304]))
    let bytes = pattern(8192, seed: 2)
    #expect(driver.write(bytes, sector: 128))
    // Pieces that are no sectors of its, and together are.
    #expect(driver.perform(.read, sector: 128, [512..<1024, 4096..<7680, 20_480..<24_576]))
    #expect(driver.memory.slice(from: 512, count: 512).copied() == Array(bytes[..<512]))
    #expect(driver.memory.slice(from: 20_480, count: 4096).copied() == Array(bytes[4096...]))
    #expect(driver.perform(.flush, sector: 0))
    #expect(try file.bytes(65_536..<73_728) == bytes)
  }

  @Test(arguments: FileWay.allCases) func discardReachesTheDevice(_ way: FileWay) throws {
    let file = try TemporaryFile(pattern(1 << 20, seed: 3))
    let device = try LoopDevice(file.path)
    let store = try FileStore(path: device.path, options: way.options)
    let limits = try #require(store.geometry.discard)
    #expect(limits.granularity >= 512 && !limits.isSecure)
    let driver = try way.driver(store)
    #expect(driver.perform(.discard, sector: 1024, sectorCount: 1024))
    #expect(driver.perform(.flush, sector: 0))
    #expect(driver.read(sector: 1024, byteCount: 1 << 19) == [UInt8](repeating: 0, count: 1 << 19))
    #expect(driver.read(sector: 1016, byteCount: 4096) == Array(pattern(1 << 20, seed: 3)[1016 * 512..<1024 * 512]))
    // Nothing of it is to be had back here, and that is said.
    #expect(!driver.perform(.secureDiscard, sector: 0, sectorCount: 8))
    #expect(driver.read(sector: 0, byteCount: 4096) == Array(pattern(4096, seed: 3)))
  }

  @Test func deviceThatGrowsIsNoticed() throws {
    let file = try TemporaryFile(byteCount: 1 << 20)
    let device = try LoopDevice(file.path)
    let store = try FileStore(path: device.path)
    try FileDescriptor.open(file.path, .readWrite).closing { try $0.resize(to: 2 << 20) }
    try Program.run("losetup", "--set-capacity", device.path.string)
    #expect(store.geometry.sectorCount == 4096)
  }

  /// The device's own medium stands still, so that the killed process's write is under way for as long as the test likes.
  @Test(
    .enabled(
      if: Program.isInstalled("fsfreeze") && Program.isInstalled("mkfs.ext4"), "there is no fsfreeze or mkfs.ext4"))
  func lockOfAKilledProcessIsGivenOnAfterItsLastWriteHasLanded() async throws {
    let outer = try TemporaryFile(byteCount: 32 << 20)
    try Program.run("mkfs.ext4", "-q", outer.path.string)
    let folder = try Program.run("mktemp", "-d")
    try Program.run("mount", "-o", "loop", outer.path.string, folder)
    defer {
      _ = try? Program.run("umount", "--lazy", folder)
      _ = try? Program.run("rmdir", folder)
    }
    let inner = FilePath(folder).appending("image")
    try FileDescriptor.open(inner, .readWrite, options: .create, permissions: .ownerReadWrite).closing {
      _ = try $0.writeAll([UInt8](repeating: 0, count: 1 << 20))
    }
    let device = try LoopDevice(inner)
    let path = device.path.string
    try Program.run("sync")
    try Program.run("fsfreeze", "--freeze", folder)
    var isFrozen = true
    defer { if isFrozen { _ = try? Program.run("fsfreeze", "--unfreeze", folder) } }
    await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
      let store = try FileStore(path: FilePath(path), options: FileStoreOptions(direct: .on))
      let driver = StoreDriver(try store.makeRing())
      driver.memory.copy(from: [UInt8](repeating: 0xAB, count: driver.memory.count).span)
      driver.put(.write, sector: 8, [0..<4096])
      driver.submit()
      precondition(driver.results.isEmpty, "the write is under way")
      kill(getpid(), SIGKILL)
    }
    var options = FileStoreOptions()
    options.lockSeconds = 0.5
    #expect(throws: FileStoreError.inUse(device.path)) { try FileStore(path: device.path, options: options) }
    isFrozen = false
    try Program.run("fsfreeze", "--unfreeze", folder)
    options.lockSeconds = 60
    let successor = try StoreDriver(queueOf: FileStore(path: device.path, options: options))
    #expect(successor.read(sector: 8, byteCount: 4096) == [UInt8](repeating: 0xAB, count: 4096))
  }
}
