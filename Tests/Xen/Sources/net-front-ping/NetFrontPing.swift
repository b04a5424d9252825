import Glibc
import NetFront
import RigHost
import RigSupport

/// Brings up the card at a frontend directory, pings a host behind its backend and compares every reply.
///
/// usage: net-front-ping [--one-event-channel] [--single-slots] FRONTEND-PATH ADDRESS PEER COUNT [COUNTERS]
///
/// Split event channels and packets of several slots are used where the backend offers them, unless switched off.
///
/// With COUNTERS, a folder with what the peer's interface has counted (/sys/class/net/INTERFACE/statistics), it also pings
/// with many pings under way, floods the peer with frames, answers the peer's pings until SIGTERM, and compares the counters with the card's own.
@main struct NetFrontPing {
  static func main() {
    RigProgram.run { given in
      let features = NetFeatures(
        splitEventChannels: !given.contains("--one-event-channel"), scatterGather: !given.contains("--single-slots"))
      let arguments = given.filter { !["--one-event-channel", "--single-slots"].contains($0) }
      guard arguments.count == 4 || arguments.count == 5, let address = IPv4Address(arguments[1]),
        let peer = IPv4Address(arguments[2]), let count = Int(arguments[3])
      else {
        throw Failure(
          "usage: net-front-ping [--one-event-channel] [--single-slots] FRONTEND-PATH ADDRESS PEER COUNT [COUNTERS]")
      }
      let host = try Host(at: arguments[0], address: address, peer: peer, features: features)
      try host.connect()
      RigProgram.say("\(host.card.negotiation)")
      try host.findPeer()
      let card = host.card
      RigProgram.say("card \(card.macAddress!) with MTU \(card.mtu!); \(peer) is at \(host.peerMAC!)")
      try refuseLongFrame(card)
      try host.ping(count: count)
      if arguments.count == 5 {
        try host.pingTogether(rounds: 20)
        // Long ones fill the ring sooner.
        try host.flood(count: card.mtu! > NetIf.defaultMTU ? 200 : 1000)
        RigProgram.say("answering")
        _ = try host.run(seconds: 400) { false }
        RigProgram.say("answered \(host.answeredCount)")
        try compareCounters(host, in: arguments[4])
      }
      guard host.loop.unannouncedCount == 0 else {
        throw Failure("\(host.loop.unannouncedCount) times something had come and no event said so")
      }
      try host.loop.leave()
      let sum = card.statistics
      RigProgram.say("left: \(sum)")
      guard sum.tx.errors + sum.tx.drops + sum.rx.errors + sum.rx.drops == 0 else {
        throw Failure("frames were lost, although every ping was answered")
      }
    }
  }

  private static func refuseLongFrame(_ card: NetFrontDevice) throws {
    let frame = [UInt8](repeating: 0, count: card.maxFrameByteCount + 1)
    do throws(NetFrontError) { try card.send(frame.span) } catch {
      if case .tooLong = error { return }
      throw error
    }
    throw Failure("a frame of \(frame.count) bytes was taken, with an MTU of \(card.mtu!)")
  }

  /// The peer receives what we transmit, and counts that without the Ethernet headers.
  private static func compareCounters(_ host: Host, in folder: String) throws {
    // The peer counts a frame before its response is seen here, and may send one of its own at any time.
    var last: [(name: String, theirs: UInt64, ours: UInt64)] = []
    for _ in 0..<1000 {
      host.card.poll { _ in }
      last = try counters(host, in: folder)
      if host.card.inFlightCount == 0, last.allSatisfy({ $0.theirs == $0.ours }) { break }
      usleep(5000)
    }
    guard host.card.inFlightCount == 0 else { throw Failure("\(host.card.inFlightCount) frames are never answered") }
    for (name, theirs, ours) in last {
      RigProgram.say("\(name): the peer's interface says \(theirs), the card \(ours)")
      guard theirs == ours else { throw Failure("the two ends disagree about \(name)") }
    }
  }

  private static func counters(_ host: Host, in folder: String) throws -> [(name: String, theirs: UInt64, ours: UInt64)]
  {
    let statistics = host.card.statistics
    let headers = UInt64(NetIf.headerByteCount) * statistics.tx.packets
    return try [
      ("rx_packets", statistics.tx.packets), ("rx_bytes", statistics.tx.bytes - headers),
      ("tx_packets", statistics.rx.packets), ("tx_bytes", statistics.rx.bytes),
    ].map { name, ours in (name, try counter("\(folder)/\(name)"), ours) }
  }

  private static func counter(_ path: String) throws -> UInt64 {
    let text = String(decoding: try RigProgram.bytes(of: path), as: UTF8.self)
    guard let number = UInt64(text.filter { !$0.isWhitespace }) else { throw Failure("\(path) holds no number") }
    return number
  }
}
