import NetBack
import NetFront
import Synchronization
import TestSupport
import XenPlatform

/// Numbered frames, each of which tells whether it is whole.
enum NumberedFrame {
  /// - Parameter random: for its length.
  static func make(_ number: UInt64, _ random: inout SeededGenerator) -> [UInt8] {
    let count = Int.random(in: 60...(number % 8 == 0 ? 1400 : 200), using: &random)
    var bytes = [UInt8](repeating: 0, count: count)
    bytes.replaceSubrange(0..<14, with: [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xB5])
    for index in 0..<8 { bytes[14 + index] = UInt8(truncatingIfNeeded: number >> UInt64(8 * index)) }
    (bytes[22], bytes[23]) = (UInt8(count & 0xFF), UInt8(count >> 8))
    for index in 24..<count { bytes[index] = filler(number, index) }
    return bytes
  }

  private static func filler(_ number: UInt64, _ index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: number &* 31 &+ UInt64(index) &* 7)
  }

  /// The number of a frame that is as it was made; nil for any other.
  static func number(_ bytes: [UInt8]) -> UInt64? {
    guard bytes.count >= 60, Int(bytes[22]) | Int(bytes[23]) << 8 == bytes.count else { return nil }
    let number = (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[14 + $1]) << UInt64(8 * $1) }
    for index in 24..<bytes.count where bytes[index] != filler(number, index) { return nil }
    return number
  }
}

/// Both ways of a card: frames may be lost, and are never delivered twice or altered.
final class FrameLedger {
  private var arrived: Set<UInt64> = []
  private(set) var next: UInt64 = 0
  private(set) var fault: String?

  var count: Int { arrived.count }

  func frame(_ random: inout SeededGenerator) -> [UInt8] {
    next += 1
    return NumberedFrame.make(next - 1, &random)
  }

  func arrive(_ bytes: [UInt8]) {
    guard let number = NumberedFrame.number(bytes), number < next else {
      fault = fault ?? "a frame of \(bytes.count) bytes arrives altered"
      return
    }
    if !arrived.insert(number).inserted { fault = fault ?? "frame \(number) arrives twice" }
  }
}

/// A card, and what goes over it both ways.
final class SimulatedCard {
  let number: Int
  private(set) var front = NetFrontDevice()
  let toNetwork = FrameLedger()
  let toGuest = FrameLedger()
  /// What the next backend's end gives the guest.
  private let waiting = Mutex<[[UInt8]]>([])

  init(_ number: Int) { self.number = number }

  var fault: String? { toNetwork.fault ?? toGuest.fault }

  func beginAnew() { front = NetFrontDevice() }

  /// For one server of it.
  func end() -> any NetworkEnd { End(OnOneThread(self)) }

  func work(_ random: inout SeededGenerator, now: Uptime) {
    front.poll(now: now) { toGuest.arrive($0.copied()) }
    if Bool.random(using: &random) {
      let frame = toGuest.frame(&random)
      waiting.withLock { $0.append(frame) }
    }
    guard front.isConnected else { return }
    for _ in 0..<Int.random(in: 0...3, using: &random) {
      let frame = toNetwork.frame(&random)
      try? front.send(frame.span)
    }
    front.push()
  }

  private final class End: NetworkEnd {
    private let card: OnOneThread<SimulatedCard>

    init(_ card: OnOneThread<SimulatedCard>) { self.card = card }

    func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
      for index in frames.indices { card.value.toNetwork.arrive(frames[index].bytes.copied()) }
    }

    func give(to guest: inout FrameQueue) {
      let frames = card.value.waiting.withLock { waiting in
        defer { waiting = [] }
        return waiting
      }
      for frame in frames { guest.put(frame.span) }
    }
  }
}
