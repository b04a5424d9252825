import Glibc
import RigSupport

/// A guest that attacks who serves its disk, or does nothing but keep its processor busy, as the key "phase" in the frontend's
/// directory says: "attack", "spin", "load" or "end".
///
/// usage: hostile-blk-front FRONTEND-PATH
///
/// Each attack is one connection, of which the ways to misbehave and to end take turns. "load" asks for what it may ask for,
/// as much as the ring holds. Says at the end how often each attack was tried, and fails if it never came to one.
@main struct HostileBlkFrontProgram {
  static func main() {
    RigProgram.run { arguments in
      guard arguments.count == 1 else { throw Failure("usage: hostile-blk-front FRONTEND-PATH") }
      let attacker = try Attacker(at: arguments[0])
      var (done, unconnected) = ([Attack: Int](), 0)
      var next = 0
      while true {
        switch attacker.phase {
        case "spin":
          let start = Uptime.now.nanoseconds
          while Uptime.now.nanoseconds - start < 100_000_000 {}
        case "load": if try attacker.connect() { while attacker.phase == "load" { attacker.load() } }
        case "attack":
          let attack = Attack.allCases[next % Attack.allCases.count]
          next += 1
          if try attacker.connect() {
            attacker.carryOut(attack)
            done[attack, default: 0] += 1
          } else {
            unconnected += 1
          }
          attacker.end(abruptly: next % 2 == 0)
        case "end":
          for attack in Attack.allCases { RigProgram.say("\(attack): \(done[attack] ?? 0)") }
          RigProgram.say("not connected: \(unconnected), answers: \(attacker.answerCount)")
          if let missing = Attack.allCases.first(where: { done[$0] == nil }) {
            throw Failure("it never came to \(missing)")
          }
          return
        default: usleep(100_000)
        }
      }
    }
  }
}
