import BlkFront
import RigSupport

/// Uses the disk at a frontend directory.
///
/// usage: blk-front FRONTEND-PATH read FILE       the whole disk into the file
///        blk-front FRONTEND-PATH write FILE      the file onto the disk from its start on, and a flush
///        blk-front FRONTEND-PATH barrier FILE    the same in writes that are barriers
///        blk-front FRONTEND-PATH rewrite FILE    the same as write, over and over until SIGTERM
///        blk-front FRONTEND-PATH refuse          fails unless the disk refuses to be written
@main struct BlkFrontProgram {
  static func main() {
    RigProgram.run { arguments in
      guard arguments.count >= 2 else { throw Failure("usage: blk-front FRONTEND-PATH COMMAND [FILE]") }
      let disk = try Disk(at: arguments[0])
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
}
