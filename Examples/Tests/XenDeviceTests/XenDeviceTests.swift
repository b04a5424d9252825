import ArgumentParser
import Foundation
import Logging
import Testing
import XenBus
import XenLoopback
import XenPlatform

@testable import xen_device

/// The commands of xen-device, with the control domain of an in-process Xen in the place of a real one's.
struct XenDeviceTests {
  private let loopback = Loopback()
  private let control: LoopbackDomain
  private let guest: LoopbackDomain

  init() {
    control = loopback.addDomain()
    guest = loopback.addDomain()
  }

  private func run(_ line: String) throws -> [String] {
    let command = try XenDeviceTool.parseAsRoot(line.split(separator: " ").map(String.init))
    let device = try #require(command as? any DeviceCommand)
    return try device.lines(on: control)
  }

  private func contents(_ path: String) throws -> [String: String] {
    let directory = StoreDirectory(path, in: try control.openXenstore())
    return Dictionary(uniqueKeysWithValues: try directory.children().map { ($0, try directory.string($0)) })
  }

  /// Runs a command that fails, and gives its sentence.
  private func refusal(_ line: String) throws -> String {
    do {
      let lines = try run(line)
      return "no refusal: \(lines)"
    } catch { return "\(error)" }
  }

  @Test func diskIsMadeAsAskedFor() throws {
    let lines = try run(
      "create vbd --frontend-domain 1 --backend-type swift --device xvdb --params nbd:one --mode r")
    #expect(
      lines == ["frontend=/local/domain/1/device/vbd/51728", "backend=/local/domain/0/backend/swift/1/51728"])
    let keys = try contents("/local/domain/0/backend/swift/1/51728")
    #expect(keys["params"] == "nbd:one" && keys["mode"] == "r" && keys["dev"] == "xvdb" && keys["type"] == "file")
  }

  @Test func fileIsGivenByItsAbsolutePath() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "swift-xen-\(UUID())").path
    try Data([0]).write(to: URL(filePath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    _ = try run("create vbd --frontend-domain 1 --image \(path)")
    let keys = try contents("/local/domain/0/backend/vbd/1/51712")
    #expect(keys["params"] == path && keys["type"] == "file" && keys["physical-device"] == nil && keys["mode"] == "w")
    #expect(try refusal("create vbd --frontend-domain 1 --image \(path)").contains("exists already"))
  }

  @Test func imageThatIsNoneIsRefused() throws {
    #expect(
      try refusal("create vbd --frontend-domain 1 --image nowhere")
        == "the image nowhere cannot be looked at: No such file or directory")
    #expect(
      try refusal("create vbd --frontend-domain 1 --image /dev/null")
        == "the image /dev/null is neither a file nor a block device")
    #expect(
      try refusal("create vbd --frontend-domain 0 --backend-domain 1 --image /dev/null")
        == "--image is looked up in this domain, 0: for a backend in domain 1 use --params")
    #expect(try run("list").count == 1)
  }

  @Test func blockDeviceIsGivenByItsNumber() throws {
    _ = try run("create vbd --frontend-domain 1 --params /dev/sdb --physical-device fd:1")
    let keys = try contents("/local/domain/0/backend/vbd/1/51712")
    #expect(keys["physical-device"] == "fd:1" && keys["type"] == "phy" && keys["params"] == "/dev/sdb")
  }

  @Test func cardIsMadeAsAskedFor() throws {
    let lines = try run(
      "create vif --frontend-domain 0 --backend-domain 1 --frontend-root udevice --handle 2 --mac 00:16:3e:00:00:07 "
        + "--mtu 9000 --script vif-bridge")
    #expect(
      lines == [
        "frontend=/local/domain/0/udevice/vif/2", "backend=/local/domain/1/backend/vif/0/2", "mac=00:16:3e:00:00:07",
      ])
    #expect(try contents("/local/domain/0/udevice/vif/2")["mtu"] == "9000")
    #expect(try contents("/local/domain/1/backend/vif/0/2")["script"] == "vif-bridge")
  }

  @Test func cardWithoutAnAddressIsGivenOneOfXens() throws {
    let addresses = try [0, 1].map { try run("create vif --frontend-domain 1 --handle \($0)")[2] }
    #expect(addresses.allSatisfy { $0.hasPrefix("mac=00:16:3e:") } && addresses[0] != addresses[1])
    #expect(try contents("/local/domain/1/device/vif/0")["mac"] == String(addresses[0].dropFirst(4)))
  }

  @Test func domainThatIsNotThereIsNamed() throws {
    #expect(try refusal("create vif --frontend-domain 7") == "there is no domain 7")
  }

  @Test func domainWithoutTheRightIsToldSo() throws {
    let command = try XenDeviceTool.parseAsRoot(["create", "vif", "--frontend-domain", "0"])
    let device = try #require(command as? any DeviceCommand)
    #expect { _ = try device.lines(on: guest) } throws: { "\($0)".contains("its permissions forbid it") }
  }

  @Test func listShowsStatesAndErrors() throws {
    _ = try run("create vbd --frontend-domain 1 --params a")
    _ = try run("create vif --frontend-domain 0")
    let store = try control.openXenstore()
    try StoreDirectory("/local/domain/1/device/vbd/51712", in: store).write([StoreEntry("state", 4)])
    try StoreDirectory("/local/domain/0/error/backend/vbd/1/51712", in: store).write(
      [StoreEntry("error", "22 no\nimage")])
    #expect(
      try run("list") == [
        "TYPE  DOMAIN  NUMBER  NAME    FRONTEND          BACKEND           DIRECTORIES",
        "vbd   1       51712   xvda    Connected (4)     Initialising (1)  "
          + "/local/domain/1/device/vbd/51712 /local/domain/0/backend/vbd/1/51712",
        "  the backend says: \"22 no\\nimage\"",
        "vif   0       0       vif0.0  Initialising (1)  Initialising (1)  "
          + "/local/domain/0/device/vif/0 /local/domain/0/backend/vif/0/0",
      ])
    #expect(try run("list vif").count == 2)
    #expect(try run("list --frontend-domain 1").count == 3)
    #expect(try run("list vbd --frontend-domain 0").count == 1)
  }

  /// Has the frontend say that it is connected.
  private func connect(_ path: String) throws {
    try StoreDirectory(path, in: try control.openXenstore()).write([StoreEntry("state", 4)])
  }

  @Test func destroyWaitsForTheBackend() throws {
    _ = try run("create vif --frontend-domain 1")
    let quiet = Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() }
    let backend = try BusThread(on: control, log: quiet) { (bus) throws(XenstoreError) in
      try bus.register(IdleBackend())
      return nil
    }
    let frontend = try BusThread(on: guest, log: quiet) { (bus) throws(XenstoreError) in
      try bus.register(IdleFrontend())
      return nil
    }
    let isConnected = try (0..<10_000).contains { _ in
      usleep(1000)
      return try run("list")[1].contains("Connected (4)  Connected (4)")
    }
    #expect(isConnected)
    #expect(
      try run("destroy vif --frontend-domain 1")
        == ["removed /local/domain/0/backend/vif/1/0, which was closed"])
    for thread in [backend, frontend] {
      thread.end(within: 10)
      thread.join()
    }
    #expect(try run("list").count == 1)
  }

  @Test func destroySaysThatTheBackendHasNotClosed() throws {
    _ = try run("create vbd --frontend-domain 1 --params a")
    try connect("/local/domain/1/device/vbd/51712")
    #expect(
      try refusal("destroy vbd --frontend-domain 1 --timeout 0.05")
        == "the backend has not closed /local/domain/0/backend/vbd/1/51712 in 0.05 s; it is removed all the same")
    #expect(try run("list").count == 1)
  }

  @Test func forceDoesNotWait() throws {
    _ = try run("create vbd --frontend-domain 1 --params a")
    try connect("/local/domain/1/device/vbd/51712")
    #expect(
      try run("destroy vbd --frontend-domain 1 --force")
        == ["removed /local/domain/0/backend/vbd/1/51712, which its backend had not closed"])
    #expect(try run("list").count == 1)
  }

  @Test func deviceThatNobodyUsesIsRemovedAtOnce() throws {
    _ = try run("create vbd --frontend-domain 1 --params a")
    #expect(
      try run("destroy vbd --frontend-domain 1 --timeout 80000")
        == ["removed /local/domain/0/backend/vbd/1/51712, which was closed"])
  }

  @Test func deviceThatIsNotThereCannotBeDestroyed() throws {
    _ = try run("create vbd --frontend-domain 1 --params a")
    #expect(
      try refusal("destroy vbd --frontend-domain 1 --device xvdb")
        == "there is no such device: neither /local/domain/1/device/vbd/51728 nor /local/domain/0/backend/vbd/1/51728")
    #expect(try run("list").count == 2)
  }
}

/// A backend that offers nothing.
private final class IdleBackend: BackendDriver, Backend {
  let type = "vif"
  let negotiation = Negotiation()

  func probe(_ device: XenbusDevice) -> any Backend { self }
  func offer(_ device: XenbusDevice) -> [StoreEntry] { [] }
  func connect(_ device: XenbusDevice) -> [StoreEntry] { [] }
  func start(_ device: XenbusDevice) {}
  func disconnect(_ device: XenbusDevice) {}
}

/// A frontend that asks for nothing.
private final class IdleFrontend: FrontendDriver, Frontend {
  let type = "vif"
  let publishedState = XenbusState.connected
  let negotiation = Negotiation()

  func probe(_ device: XenbusDevice) -> any Frontend { self }
  func publish(_ device: XenbusDevice) -> [StoreEntry] { [] }
  func connect(_ device: XenbusDevice) {}
  func stop(_ device: XenbusDevice) {}
  func release(_ device: XenbusDevice) {}
}
