/// Everything a driver needs from the hypervisor, from one domain's point of view.
public protocol Platform: AnyObject, Sendable {
  /// The domain that we are.
  var domain: DomainID { get }
  var grants: any GrantTable { get }

  /// A handle of its own for each queue.
  func openEventChannels() throws(EventChannelError) -> any EventChannels

  /// A connection of its own for each bus.
  func openXenstore() throws(XenstoreError) -> any Xenstore
}
