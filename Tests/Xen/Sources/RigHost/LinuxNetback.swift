import RigSupport

/// What Linux's network backend shows of itself, for telling a frontend that does not notify from a backend that does
/// not listen.
///
/// In about one connection of twenty Linux 6.1 takes the first event of a channel and no other: its interrupt stays
/// masked, and the backend does not know that it owes the acknowledgement. That happens with other frontends too. Its
/// file in debugfs makes it look at its rings once; then it takes events again, first of all one that has been waiting.
struct LinuxNetback {
  private let interface: String
  private var debugFile: String { "/sys/kernel/debug/xen-netback/\(interface)/io_ring_q0" }

  /// Nil unless debugfs is mounted and has this interface.
  init?(interface: String) {
    self.interface = interface
    guard (try? RigProgram.bytes(of: debugFile)) != nil else { return nil }
  }

  /// How many events of its first queue's transmit ring the backend has taken.
  func eventCount() throws -> Int {
    let text = String(decoding: try RigProgram.bytes(of: "/proc/interrupts"), as: UTF8.self)
    // One for both rings, or one for each.
    let names = [" \(interface)-q0", " \(interface)-q0-tx"]
    guard let line = text.split(separator: "\n").first(where: { line in names.contains { line.hasSuffix($0) } }) else {
      throw Failure("\(interface) has no interrupt")
    }
    // The interrupt's number, a count for each processor, then words.
    return line.split(separator: " ").dropFirst().prefix { Int($0) != nil }.compactMap { Int($0) }.reduce(0, +)
  }

  func kick() throws { try RigProgram.write(Array("kick".utf8), to: debugFile) }
}
