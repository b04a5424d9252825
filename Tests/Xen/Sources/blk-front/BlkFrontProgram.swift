import BlkFront
import RigSupport

/// Uses the disk at a frontend directory.
///
/// usage: blk-front FRONTEND-PATH read FILE       the whole disk into the file
///        blk-front FRONTEND-PATH write FILE      the file onto the disk from its start on, and a flush
///        blk-front FRONTEND-PATH barrier FILE    the same in writes that are barriers
///        blk-front FRONTEND-PATH rewrite FILE    the same as write, over and over until SIGTERM
///        blk-front FRONTEND-PATH refuse          fails unless the disk refuses to be written
///
/// Before all of it, --protocol x86_32-abi speaks another ring layout than the native one.
@main struct BlkFrontProgram {
  static func main() {
    RigProgram.run { arguments in
      var arguments = arguments
      let layout = try takeProtocol(&arguments)
      guard arguments.count >= 2 else {
        throw Failure("usage: blk-front [--protocol LAYOUT] FRONTEND-PATH COMMAND [FILE]")
      }
      let disk = try Disk(at: arguments[0], protocol: layout)
      RigProgram.say("\(disk.device.negotiation)\n\(disk.geometry)")
      switch (arguments[1], arguments.count) {
      case ("read", 3): try disk.read(to: arguments[2])
      case ("write", 3): try disk.write(RigProgram.bytes(of: arguments[2]), as: .write)
      case ("barrier", 3): try disk.write(RigProgram.bytes(of: arguments[2]), as: .barrier)
      case ("rewrite", 3):
        let bytes = try RigProgram.bytes(of: arguments[2])
        var rounds = 0
        while !RigProgram.isStopRequested {
          try disk.write(bytes, as: .write)
          rounds += 1
          RigProgram.say("round \(rounds) is written")
        }
      case ("refuse", 2): try disk.refuseWrites()
      default: throw Failure("blk-front does not know \(arguments.dropFirst().joined(separator: " "))")
      }
      guard disk.loop.unannouncedCount == 0 else {
        throw Failure("\(disk.loop.unannouncedCount) times something had come and no event said so")
      }
      try disk.loop.leave()
      RigProgram.say("left")
    }
  }
  /// Takes the option out, if it is there.
  private static func takeProtocol(_ arguments: inout [String]) throws -> BlkProtocol {
    guard arguments.first == "--protocol" else { return .native }
    guard arguments.count >= 2, let layout = BlkProtocol(rawValue: arguments[1]) else {
      throw Failure("--protocol takes one of \(BlkProtocol.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    arguments.removeFirst(2)
    return layout
  }
}
