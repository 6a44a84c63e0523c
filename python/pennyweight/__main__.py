from pennyweight import main

main()
