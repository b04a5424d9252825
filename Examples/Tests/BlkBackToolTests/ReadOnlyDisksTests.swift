import BlkBack
import BlkFront
import BlockStores
import Foundation
import Testing
import XenLoopback

@testable import BlkBackTool

/// `--read-only`, and the key `mode`, over each store that this machine has without a server.
struct ReadOnlyDisksTests {
  private let root: URL
  /// Images may lie anywhere. Of no directory none can be missing.
  private let images = try! ImageDirectories([])

  init() throws {
    root = FileManager.default.temporaryDirectory.appending(path: "read-only-\(UUID())")
    try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
    try Data((0..<65_536).map { UInt8(truncatingIfNeeded: $0 / 512) }).write(to: root.appending(path: "disk"))
  }

  private func path(_ name: String) -> String { root.appending(path: name).path }

  private func arguments(_ store: String) -> (image: String, options: [String]) {
    switch store {
    case "memory": ("64K", ["--store", "memory"])
    case "overlay": (path("overlay"), ["--store", "overlay", "--base", path("disk")])
    default: (path("disk"), ["--store", "file"])
    }
  }

  /// A disk with both its ends, connected, and its backend's keys.
  private func serve(
    _ image: String, _ options: StoreOptions, modeIsReadOnly: Bool = false, isReadOnly: Bool,
    _ body: (_ back: Bus, _ disk: BlkFrontDevice, _ keys: StoreDirectory) throws -> Void
  ) throws {
    let loopback = Loopback()
    let (control, guest, driver) = (loopback.addDomain(), loopback.addDomain(), loopback.addDomain())
    let device = try Toolstack(on: control).addVbd(
      to: guest.domain, servedBy: driver.domain, params: image, isReadOnly: modeIsReadOnly)
    let (back, front, disk) = (try Bus(on: driver), try Bus(on: guest), BlkFrontDevice())
    try back.register(
      BlkBackDriver { (device) throws(DeviceError) in
        try options.open(for: device, isReadOnly: isReadOnly, in: images).store
      })
    try front.register(disk, at: device.frontendPath)
    let connected = back.run(seconds: 300) {
      front.poll()
      return disk.isConnected && back.isConnected
    }
    try #require(connected, "\(back.report) \(front.report)")
    try body(back, disk, StoreDirectory(device.backendPath, in: try control.openXenstore()))
    front.close()
    let closed = back.run(seconds: 300) {
      front.poll()
      return front.isEmpty
    }
    #expect(closed, "\(front.report)")
  }

  /// - Returns: what the one request under way has brought, when it has succeeded.
  private func complete(_ disk: BlkFrontDevice, _ back: Bus) -> [UInt8]? {
    disk.push()
    var bytes: [UInt8]?
    _ = back.run(seconds: 300) {
      disk.poll { if $0.result == .succeeded { bytes = $0.copied() } }
      return disk.inFlightCount == 0
    }
    return bytes
  }

  @Test(arguments: ["file", "overlay", "memory"], [true, false])
  func diskThatMayOnlyBeReadSaysSo(store: String, byOption: Bool) throws {
    defer { try? FileManager.default.removeItem(at: root) }
    let (image, arguments) = arguments(store)
    let options = try StoreOptions.parse(arguments)
    try serve(image, options, modeIsReadOnly: !byOption, isReadOnly: byOption) { back, disk, keys in
      // VDISK_READONLY.
      #expect(try keys.optionalNumber("info", as: Int.self) == 4)
      #expect(try keys.optionalString("mode") == (byOption ? "w" : "r"))
      #expect(try keys.flag("feature-discard") == false)
      #expect(disk.geometry?.isReadOnly == true && disk.geometry?.sectorCount == 128)
      #expect(throws: BlkFrontError.readOnlyDisk) {
        try disk.write(sector: 0, [UInt8](repeating: 1, count: 512).span, tag: 1)
      }
      try disk.read(sector: 8, byteCount: 512, tag: 2)
      #expect(complete(disk, back) == [UInt8](repeating: store == "memory" ? 0 : 8, count: 512))
    }
  }

  /// What was written before it is read only is there.
  @Test func overlayThatIsReadOnlyShowsWhatWasWritten() throws {
    defer { try? FileManager.default.removeItem(at: root) }
    let (image, arguments) = arguments("overlay")
    let options = try StoreOptions.parse(arguments)
    let written = [UInt8](repeating: 0xA5, count: 512)
    try serve(image, options, isReadOnly: false) { back, disk, _ in
      try disk.write(sector: 8, written.span, tag: 1)
      #expect(complete(disk, back) == [])
    }
    try serve(image, options, isReadOnly: true) { back, disk, _ in
      #expect(disk.geometry?.isReadOnly == true)
      try disk.read(sector: 8, byteCount: 1024, tag: 2)
      #expect(complete(disk, back) == written + [UInt8](repeating: 9, count: 512))
    }
  }
}
