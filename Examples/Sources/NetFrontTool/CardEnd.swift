import NetFront

/// What a card of ours is connected to on this side. All of it runs on the thread of the card's bus.
public protocol CardEnd: AnyObject {
  /// The card has connected, or connected again: its address and its MTU may be others.
  func connected(_ card: NetFrontDevice) throws(CardEndError)

  /// It is not connected any more.
  func disconnected()

  /// A frame has arrived. What is sent is pushed afterwards, with the others.
  func take(_ frame: borrowing NetFrontFrame, _ card: NetFrontDevice, now: Uptime)

  /// Does what there is to do besides; called after each batch of frames, also of none, while connected.
  ///
  /// - Returns: when to be called again. `.stopped` when the end has done what it was for.
  func poll(_ card: NetFrontDevice, now: Uptime) throws(CardEndError) -> PollOutcome

  /// Appends what to sleep on besides the card, while it is connected.
  func appendDescriptors(to list: inout [CInt], _ card: NetFrontDevice)

  /// Grows with whatever it does besides sending and receiving, such as frames that it has to drop.
  var workCount: UInt64 { get }

  /// One sentence about what it has done.
  var summary: String { get }
}

extension CardEnd {
  public func disconnected() {}
  public var workCount: UInt64 { 0 }
  public func appendDescriptors(to list: inout [CInt], _ card: NetFrontDevice) {}
}

/// Why an end cannot go on, as a sentence.
public struct CardEndError: Error, Hashable, Sendable, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}
