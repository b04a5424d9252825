@_exported import BlkIf
@_exported import XenRing

/// Serves disks: a bus hands it each device of its type, and it asks for the store to serve.
public struct BlkBackDriver: BackendDriver {
  public let type: String
  public let servesUntilClosed = true
  private let options: BlkBackOptions
  /// For tests: told of each step of what is recorded.
  package var recordHook: RecordHook?
  private let makeStore: (XenbusDevice) throws(DeviceError) -> any BlockStore
  private let whenClosed: (XenbusDevice, BlkBackStatistics) -> Void
  private let remainders = BlkBackRemainders()

  /// - Parameters:
  ///   - type: the name under `backend/`: "vbd" for disks that no kernel driver claims.
  ///   - options: what the disks offer.
  ///   - whenClosed: told what a disk has done, each time that it is disconnected.
  ///   - store: makes what a device serves, going by the keys of the device's own directory (`params`).
  public init(
    type: String = "vbd", options: BlkBackOptions = BlkBackOptions(),
    whenClosed: @escaping (XenbusDevice, BlkBackStatistics) -> Void = { _, _ in },
    store: @escaping (XenbusDevice) throws(DeviceError) -> any BlockStore
  ) {
    precondition(options.areValid, "options within their ranges")
    self.type = type
    self.options = options
    self.whenClosed = whenClosed
    makeStore = store
  }

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend {
    let count = remainders.requestCount(of: device.own.path)
    guard count == 0 else {
      throw .unavailable("the store has not completed \(count) requests that it had when the disk was disconnected")
    }
    return BlkBackDevice(
      store: try makeStore(device), options: options, recordHook: recordHook, remainders: remainders,
      whenClosed: whenClosed)
  }
}
