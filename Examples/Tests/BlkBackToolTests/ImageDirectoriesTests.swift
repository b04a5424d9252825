import BlkBack
import Foundation
import Testing
import XenLoopback

@testable import BlkBackTool

/// Which images a device's own keys may name.
struct ImageDirectoriesTests {
  private let root: URL
  private let images: ImageDirectories

  init() throws {
    let root = FileManager.default.temporaryDirectory.resolvingSymlinksInPath().appending(path: "images-\(UUID())")
    for folder in ["images/below", "elsewhere"] {
      try FileManager.default.createDirectory(at: root.appending(path: folder), withIntermediateDirectories: true)
    }
    for file in ["images/one", "images/below/two", "elsewhere/secret", "images-too"] {
      try Data(count: 4096).write(to: root.appending(path: file))
    }
    self.root = root
    images = try ImageDirectories([root.appending(path: "images").path])
  }

  private func path(_ name: String) -> String { root.appending(path: name).path }

  private func link(_ name: String, to place: String) throws {
    try FileManager.default.createSymbolicLink(atPath: path(name), withDestinationPath: place)
  }

  @Test func imagesInTheFoldersAndBelowAreServed() throws {
    defer { try? FileManager.default.removeItem(at: root) }
    for name in ["images/one", "images/below/two", "images/below/../one"] {
      #expect(try images.path(of: path(name)) == path(name.replacing("below/../", with: "")))
    }
    // An overlay that is yet to be made.
    #expect(try images.path(of: path("images/below/new")) == path("images/below/new"))
    try link("images/link", to: path("images/below"))
    #expect(try images.path(of: path("images/link/two")) == path("images/below/two"))
  }

  @Test func whatLiesElsewhereIsNotServedWhateverItsName() throws {
    defer { try? FileManager.default.removeItem(at: root) }
    try link("images/out", to: path("elsewhere/secret"))
    try link("images/folder", to: path("elsewhere"))
    try link("images/dangling", to: path("elsewhere/new"))
    for name in [
      "elsewhere/secret", "images/../elsewhere/secret", "images/out", "images/folder/secret", "images/folder/new",
      "images/dangling", "images-too", "images", "images/below/../../elsewhere/secret", "images/none/new",
    ] {
      #expect(throws: StoreFailure.self, "\(name)") { try images.path(of: path(name)) }
    }
    for name in ["one", "images/one", "", "/", "/etc/shadow"] {
      #expect(throws: StoreFailure.self, "\(name)") { try images.path(of: name) }
    }
  }

  @Test func withoutFoldersEveryImageIsServed() throws {
    defer { try? FileManager.default.removeItem(at: root) }
    #expect(try ImageDirectories([]).path(of: "/elsewhere/one") == "/elsewhere/one")
  }

  /// The guest's own directory names another image, another mode and another store.
  @Test func noPathIsTakenFromAKeyThatAGuestOwns() throws {
    defer { try? FileManager.default.removeItem(at: root) }
    let loopback = Loopback()
    let (control, guest, driver) = (loopback.addDomain(), loopback.addDomain(), loopback.addDomain())
    let toolstack = try Toolstack(on: control)
    let device = try toolstack.addVbd(
      to: guest.domain, servedBy: driver.domain, params: path("images/one"), isReadOnly: true)
    let evil = try toolstack.addVbd(51728, to: guest.domain, servedBy: driver.domain, params: path("elsewhere/secret"))
    let guestStore = try guest.openXenstore()
    for directory in [device.frontendPath, evil.frontendPath] {
      try StoreDirectory(directory, in: guestStore).write([
        StoreEntry("params", path("images/below/two")), StoreEntry("mode", "w"), StoreEntry("type", "file"),
        StoreEntry("physical-device-path", path("images/one")),
      ])
    }
    let options = try StoreOptions.parse([])
    let bus = try Bus(on: driver)
    let opened = Opened()
    try bus.register(
      BlkBackDriver { (device) throws(DeviceError) in
        let store = try options.open(for: device, in: images)
        opened.stores[device.own.path] = store.store
        return store.store
      })
    for _ in 0..<20 { bus.poll() }
    #expect(Array(opened.stores.keys) == [device.backendPath])
    #expect(opened.stores[device.backendPath]?.geometry.isReadOnly == true)
    let message = try StoreDirectory(
      "/local/domain/\(driver.domain.rawValue)/error/\(evil.backendPath.split(separator: "/").dropFirst(3).joined(separator: "/"))",
      in: try control.openXenstore()
    ).string("error")
    #expect(message.contains("lies outside of the folders of images"))
  }

  private final class Opened { var stores: [String: any BlockStore] = [:] }
}
