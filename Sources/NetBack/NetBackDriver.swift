@_exported import NetIf
@_exported import XenRing

/// Serves network cards: a bus hands it each device of its type, and it asks for the end that the frames go to.
public struct NetBackDriver: BackendDriver {
  public let type: String
  private let makeEnd: (XenbusDevice) throws(DeviceError) -> any NetworkEnd
  private let features: NetFeatures
  private let whenClosed: (XenbusDevice, [NetStatistics]) -> Void

  /// - Parameters:
  ///   - type: the name under `backend/`: "vif" for cards that no kernel driver claims.
  ///   - features: what is offered to frontends.
  ///   - whenClosed: told what each queue of a card has done, each time that it is disconnected.
  ///   - end: makes what a device's frames go to, going by the keys of the device's own directory (`mac`, `bridge`).
  public init(
    type: String = "vif", features: NetFeatures = NetFeatures(),
    whenClosed: @escaping (XenbusDevice, [NetStatistics]) -> Void = { _, _ in },
    end: @escaping (XenbusDevice) throws(DeviceError) -> any NetworkEnd
  ) {
    self.type = type
    self.features = features
    self.whenClosed = whenClosed
    makeEnd = end
  }

  public var watchedKeys: [String] { ["request-multicast-control", "xdp-headroom"] }

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend {
    NetBackDevice(end: try makeEnd(device), features: features, whenClosed: whenClosed)
  }
}
